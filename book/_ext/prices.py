"""`{gpu-prices}`: what a GPU costs by the hour at the providers named, from the price file, each with the day it was read."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.calc import tables

PROVIDERS = {"aws": "AWS", "gcp": "Google Cloud", "lambda": "Lambda", "runpod": "RunPod"}
GPUS = ("t4", "l4", "a10g", "a100-40gb", "a100-80gb", "h100")


def rows() -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return a row of cells for each GPU, its name first, and the price records that they show."""
    table, shown = [], []
    for gpu in GPUS:
        offers = tables.prices(gpu)
        cells = [tables.gpu(gpu)["title"]]
        for provider in PROVIDERS:
            mine = [offer for offer in offers if offer["provider"] == provider]
            shown += mine[:1]
            cells.append(cell(mine[0]) if mine else "–")
        table.append(cells)
    return table, shown


def cell(offer: dict[str, Any]) -> str:
    """Return an offer in a few words: dollars per GPU and hour, the instance, and what one must know."""
    number = offer["gpus_per_instance"]
    marks = (" †" if offer["partial"] else "") + (" \\*" if offer["unverified"] else "")
    return f"\\${offer['usd_per_gpu_hour']:.2f}{marks}<br>{offer['instance']}" + (
        f", only by {number}" if number > 1 else ""
    )


class Prices(SphinxDirective):
    """A table, and the sources below it."""

    def run(self) -> list[nodes.Node]:
        """Return the table and its sources."""
        table, shown = rows()
        lines = [f"| GPU | {' | '.join(PROVIDERS.values())} |", f"|{' --- |' * (len(PROVIDERS) + 1)}"]
        lines += [f"| {' | '.join(cells)} |" for cells in table]
        sources = {offer["url"]: f"[{offer['source']}]({offer['url']}), read {offer['read']}" for offer in shown}
        left_out = sorted({offer["partial"] for offer in shown if offer["partial"]})
        notes = "Dollars per GPU and hour, on demand; of a range, the upper end. \\*: from a weak source."
        notes += f" †: {'; '.join(left_out)}." if left_out else ""
        lines += ["", f"{notes} Sources: {'; '.join(sources.values())}.", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("gpu-prices", Prices)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
