"""`{troubleshooting}`: every chapter's troubleshooting table on one page, read from the chapters when the site is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.notebook.chapter import chapters

SECTION = re.compile(r"^## Troubleshooting\n(.*?)(?=^## |\Z)", re.M | re.S)
TITLE = re.compile(r"^# (.+)$", re.M)


def table(chapter: str) -> list[str]:
    """Return the rows of the table in a chapter's section `Troubleshooting`, each a line of Markdown; empty if it has none."""
    section = SECTION.search(chapter)
    lines = [line for line in section[1].splitlines() if line.startswith("|")] if section else []
    return lines[2:]


class Troubleshooting(SphinxDirective):
    """A heading and a table for each chapter, in order."""

    def run(self) -> list[nodes.Node]:
        """Return the tables; an error where a chapter has none."""
        lines: list[str] = []
        for path in chapters(Path(self.env.srcdir)):
            text = path.read_text(encoding="utf-8")
            rows = table(text)
            title = TITLE.search(text)
            if not rows or not title:
                raise self.error(f"{path.name} has no title, or no table in a section `## Troubleshooting`")
            self.env.note_dependency(str(path))
            lines += [f"## {title[1]}", "", f"From [this chapter]({path.name}#troubleshooting).", ""]
            lines += ["| symptom | cause | cure |", "| --- | --- | --- |", *rows, ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("troubleshooting", Troubleshooting)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
