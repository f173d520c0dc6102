"""The course's questions on its pages: each self-check at the end of its section, and all of a chapter by `{quiz} N`.

Without scripts a question is followed by its options and, folded, by the answer and a word on each option. `quiz.mjs` makes a form of it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llminfra.errors import QuizError
from llminfra.quiz.bank import FILE, Question, html, questions


def rendered(one: Question, page: str) -> str:
    """Return a question as HTML, open for a reader without scripts; `page` is the address of its chapter."""
    about = f'data-id="{one.id}" data-objective="{one.objective}" data-section="{page}#{one.section}"'
    if one.parsons:
        lines = [*one.parsons.lines, *one.parsons.distractors]
        random.Random(one.id).shuffle(lines)
        shown = "".join(f"<li><code>{escape(line, quote=False)}</code></li>" for line in lines)
        right = "\n".join(escape(line, quote=False) for line in one.parsons.lines)
        answer = f'<pre class="quiz-order" tabindex="0">{right}</pre><p>{html(one.parsons.because)}</p>'
        kind = "order"
    else:
        shown = "".join(f"<li>{html(option.text)}</li>" for option in one.options)
        answer = "".join(
            f"<li{' data-right' if option.right else ''}><strong>{'Right' if option.right else 'Not right'}: "
            f"{html(option.text)}</strong> {html(option.because)}</li>"
            for option in one.options
        )
        answer = f"<ul>{answer}</ul>"
        kind = "choice"
    return (
        f'<div class="quiz-item" data-kind="{kind}" {about}><p class="quiz-stem">{html(one.stem)}</p>'
        f'<ul class="quiz-options">{shown}</ul>'
        f'<details class="quiz-answer"><summary>Answer</summary>{answer}</details></div>'
    )


def asked(wanted: Sequence[Question], page: str) -> list[nodes.Node]:
    """Return the questions as nodes."""
    return [nodes.raw("", rendered(one, page), format="html") for one in wanted]


class Quiz(SphinxDirective):
    """`{quiz} N`: the questions of a chapter in two sets, its diagnostic (the self-checks) and its module quiz."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both sets; an error for a chapter without questions."""
        self.env.note_dependency(str(FILE))
        self.env.metadata[self.env.docname]["questions"] = "yes"  # page.html loads the script
        try:
            own = [one for one in questions() if str(one.chapter) == self.arguments[0]]
        except QuizError as error:
            raise self.error(str(error)) from error
        if not own:
            raise self.error(f"there is no question of chapter {self.arguments[0]}")
        page = next(_address(name) for name in self.env.found_docs if _chapter(name) == own[0].chapter)
        found: list[nodes.Node] = []
        for use, title in (("check", "Diagnostic: what may you skip?"), ("module", "Module quiz")):
            name = f"{use}-{own[0].chapter}"
            found.append(nodes.raw("", f'<div class="quiz-set" data-set="{name}" data-use="{use}">', format="html"))
            found.append(nodes.rubric(title, title))
            found += asked([one for one in own if one.use == use], page)
            found.append(nodes.raw("", "</div>", format="html"))
        return found


def _chapter(docname: str) -> int:
    """Return the number of the chapter that a page is; 0 for any other page."""
    found = re.match(r"book/(\d\d)-", docname)
    return int(found[1]) if found else 0


def _checks(docname: str) -> list[Question]:
    """Return the self-checks of the chapter that a page is; none for any other page."""
    return [one for one in questions() if one.chapter == _chapter(docname) and one.use == "check"]


def _address(docname: str) -> str:
    """Return a chapter's address, seen from any page of its folder."""
    return f"{docname.rpartition('/')[2]}.html"


def place(_app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put each self-check at the end of its section, before the sections inside it."""
    own = _checks(docname)
    for section in doctree.findall(nodes.section) if own else ():
        here = [one for one in own if one.section in section["ids"]]
        if here:
            inner = next((child for child in section.children if isinstance(child, nodes.section)), None)
            at = section.index(inner) if inner else len(section)
            section.insert(at, asked(here, _address(docname)))


def mark(app: Sphinx, docname: str, _source: list[str]) -> None:
    """Load the script on chapters that have self-checks, and read them again when the bank changes."""
    if _checks(docname):
        app.env.note_dependency(str(FILE))
        app.env.metadata[docname]["questions"] = "yes"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("quiz", Quiz)
    app.connect("source-read", mark)
    app.connect("doctree-resolved", place, priority=950)
    return {"version": "1", "parallel_read_safe": True}
