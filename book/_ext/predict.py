"""`{predict}`: a number or a choice that the reader commits to before the cells below show it.

The answer is not written twice: `:answer:` is a regular expression whose group finds it in the output of the cells below (two groups: the
second divided by the first), or the right one of the `:choices:`. What the cells show, and the paragraph after them, stays folded in a
browser with scripts until the reader commits or declines; everywhere else the question is a paragraph, and all is open.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)


class Predict(SphinxDirective):
    """A question; options: answer, choices (separated by `|`), unit, cells (how many below it are folded; 1)."""

    has_content = True
    option_spec = {  # noqa: RUF012
        "answer": directives.unchanged_required,
        "choices": directives.unchanged,
        "unit": directives.unchanged,
        "cells": directives.positive_int,
    }

    def run(self) -> list[nodes.Node]:
        """Return the question, with what the script needs; an error without an answer, or for one that is no choice."""
        choices = [one.strip() for one in self.options.get("choices", "").split("|") if one.strip()]
        answer = self.options.get("answer", "")
        if not answer or (choices and answer not in choices):
            raise self.error("predict: give an :answer:, and for :choices: one of them")
        self.env.metadata[self.env.docname]["practice"] = "yes"  # page.html loads the scripts
        holder = nodes.container(classes=["predict"])
        holder["answer"], holder["choices"] = answer, choices
        holder["unit"], holder["cells"] = self.options.get("unit", ""), self.options.get("cells", 1)
        holder["number"] = self.env.new_serialno("predict") + 1
        self.state.nested_parse(self.content, self.content_offset, holder)
        return [holder]


def fold(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Mark what each question folds, and warn where its answer is not in the output below it."""
    for holder in list(doctree.findall(lambda node: isinstance(node, nodes.container) and "answer" in node)):
        siblings = holder.parent.children
        shown: list[nodes.Element] = []
        output = ""
        for node in siblings[siblings.index(holder) + 1 :]:
            if len(shown) < holder["cells"]:
                if "cell" in node.get("classes", []):
                    shown.append(node)
                    output += node.astext() + "\n"
            elif isinstance(node, nodes.paragraph):
                shown.append(node)
                break
            elif isinstance(node, nodes.section) or "cell" in node.get("classes", []):
                break
        for node in shown:
            node["classes"].append("foretold")
        if len(shown) < holder["cells"]:
            logger.warning("predict: fewer cells below it than it folds", location=holder, type="predict")
        elif not holder["choices"] and not re.search(holder["answer"], output):
            logger.warning(f"predict: no output below matches {holder['answer']!r}", location=holder, type="predict")
        data = {"answer": holder["answer"], "unit": holder["unit"], "choices": "|".join(holder["choices"])}
        data |= {"cells": str(holder["cells"]), "number": str(holder["number"])}
        words = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items() if value)
        opened = nodes.raw("", f'<div class="predict" {words}>', format="html")
        at = siblings.index(holder)
        holder.parent.children[at : at + 1] = [opened, *holder.children, nodes.raw("", "</div>", format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("predict", Predict)
    app.connect("doctree-resolved", fold, priority=900)
    return {"version": "1", "parallel_read_safe": True}
