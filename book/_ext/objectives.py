"""`{objectives}`: the table of objectives, each with where it is taught, practised and asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.notebook.chapter import chapters
from llminfra.notebook.objectives import FILE, gathered


class Objectives(SphinxDirective):
    """A row for each objective; what is planned is in italics."""

    def run(self) -> list[nodes.Node]:
        """Return the table; an error for what contradicts."""
        root = Path(self.env.srcdir)
        found, problems = gathered(root)
        if problems:
            raise self.error("; ".join(problems))
        for source in (
            FILE,
            "quiz/questions.yml",
            *(str(path) for path in (root / "exercises").glob("*/exercise.yml")),
        ):
            self.env.note_dependency(str(root / source))
        pages = {path.name[:2]: path.name for path in chapters(root)}
        contents = (root / "_toc.yml").read_text(encoding="utf-8")
        briefs = {
            path.parent.name[:2]: f"/exercises/{path.parent.name}/README.md"
            for path in (root / "exercises").glob("*/README.md")
            if f"exercises/{path.parent.name}/README" in contents
        }
        lines = [
            "| | you can … | taught in chapter | practised in exercise | asked |",
            "| --- | --- | --- | --- | --- |",
        ]
        for one in found:
            taught = [f"[{number}]({pages[f'{number:02}']})" for number in one.taught]
            brief = {number: briefs.get(f"{number:02}") for number in one.practised}
            practised = [f"[{number}]({page})" if page else str(number) for number, page in brief.items()]
            taught += [f"*{number}*" for number in one.planned_chapters]
            practised += [f"*{number}*" for number in one.planned_exercises]
            asked = f"{one.asked} {'question' if one.asked == 1 else 'questions'}" if one.asked else "*planned*"
            lines.append(f"| {one.id} | {one.can} | {', '.join(taught)} | {', '.join(practised)} | {asked} |")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("objectives", Objectives)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
