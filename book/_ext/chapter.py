"""The head of a chapter: level, times, memory, objectives, and what running it costs on a rented GPU."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.calc import cost, tables

GPUS = {"t4": "T4", "a10g": "A10G", "a100-40gb": "A100 40 GB"}
PROVIDERS = {"aws": "AWS", "gcp": "Google Cloud", "runpod": "RunPod"}
KEYS = {"number", "level", "reading_minutes", "lab_minutes", "memory_gb", "objectives"}


class ChapterHeader(SphinxDirective):
    """`{chapter-header}`: renders the front matter `course:` of its page."""

    def run(self) -> list[nodes.Node]:
        """Return the header; an error where the front matter lacks a key."""
        text = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        course = yaml.safe_load(text.split("---")[1]).get("course")
        missing = KEYS - set(course or {})
        if missing:
            raise self.error(f"the front matter's `course:` lacks {', '.join(sorted(missing))}")
        return [nodes.raw("", self.render(course), format="html")]

    def render(self, course: dict[str, Any]) -> str:
        """Return the header as HTML, with costs from the price file."""
        offers = {title: cost.lab_usd(gpu, course["lab_minutes"]) for gpu, title in GPUS.items()}
        prices = ", ".join(
            f"{title} ${offer['usd']:.2f} ({PROVIDERS.get(offer['provider'], offer['provider'].title())}, ${offer['usd_per_hour']:.2f}/h)"
            for title, offer in offers.items()
        )
        read = min(offer["read"] for offer in offers.values())
        cards = min(tables.sourced("gpus", gpu, field)["read"] for gpu in GPUS for field in ("memory_bytes", "rates"))
        up = "../" * self.env.docname.count("/") + "book/course-map.html#objectives"
        goals = " ".join(f'<a href="{up}">{html.escape(goal)}</a>' for goal in course["objectives"])
        rows = {
            "Level": html.escape(course["level"]),
            "Reading": f"{course['reading_minutes']} minutes",
            "Labs": f"{course['lab_minutes']} minutes, {course['memory_gb']} GB of memory, no GPU needed",
            "On a rented GPU": f"{html.escape(prices)}; on-demand prices read {read}, GPU data read {cards}",
            "Objectives": goals,
        }
        cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows.items())
        return f'<dl class="chapter-header">{cells}</dl>'


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("chapter-header", ChapterHeader)
    return {"version": "1", "parallel_read_safe": True}
