"""`{requirements}`: what an exercise asks for, from its `exercise.yml`, each with its hints folded in three steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.errors import ExerciseError
from llminfra.exercise import Requirement, read


class Requirements(SphinxDirective):
    """The requirements of the exercise whose brief this page is."""

    def run(self) -> list[nodes.Node]:
        """Return a definition for each requirement."""
        folder = Path(self.env.doc2path(self.env.docname)).parent
        self.env.note_dependency(str(folder / "exercise.yml"))
        try:
            exercise = read(folder)
        except ExerciseError as error:
            raise self.error(str(error)) from error
        text = "\n".join(line for one in exercise.requirements for line in lines(one))
        return [nodes.container("", *self.parse_text_to_nodes(text), classes=["requirements"])]


def lines(one: Requirement) -> list[str]:
    """Return a requirement as lines of MyST."""
    gpu = " *(needs a GPU)*" if one.gpu else ""
    found = [f"**{one.id}.** {one.says}{gpu} See [](../../book/{one.section}).", ""]
    steps = range(1, len(one.hints) + 1)
    for number, hint in zip(steps, one.hints, strict=True):  # each inside the one before it
        found += [f"{':' * (10 - number)}{{dropdown}} {one.id}: hint {number} of {len(one.hints)}", hint, ""]
    return [*found, *(":" * (10 - number) for number in reversed(steps)), ""]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("requirements", Requirements)
    return {"parallel_read_safe": True}
