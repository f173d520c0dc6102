"""What `llminfra trust` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from . import compare


def figures(found: list[compare.Compared]) -> None:
    """Print each figure that was predicted beside what was reported, and a line for each kind."""
    console = Console()
    table = Table("row", "kind", "predicted", "reported", "error", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in found:
        style = "dim" if one.row.old or one.row.ambiguous else ""
        sizes = [f"{size:,.0f}" if size >= 1000 else f"{size:.2f}" for size in (one.predicted, one.reported)]
        table.add_row(one.row.name, one.kind, *sizes, f"{one.error:+.1%}", style=style)
    console.print(table)
    settled = [one for one in found if not one.row.old and not one.row.ambiguous]
    for kind in compare.summary(settled):
        console.print(
            f"{kind.kind}: {kind.rows} rows, median error {kind.median:.1%}, {kind.usual_share:.0%} within "
            f"{compare.BARS[kind.kind].usual:.0%}, worst {kind.worst.error:+.1%} ({kind.worst.row.name})",
            soft_wrap=True,
        )
