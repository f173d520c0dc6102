"""Link the first appearance of each glossary term in a chapter or exercise to the glossary, unless its author linked that one.

Done when a page is written, not in its source: a term that joins the glossary is then linked everywhere, and a paragraph that
moves takes no link along.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from llminfra.notebook.terms import Term, belongs, pattern, read

LEFT_ALONE = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.raw,
    nodes.math,
    nodes.caption,
    nodes.rubric,
    nodes.footnote,
    nodes.citation,
    addnodes.pending_xref,
)

APART = {"twin-stamp", "predict", "cell_output", "cell_input"}
"""Classes of containers that are no prose, or that a reader operates."""


class Link(SphinxPostTransform):
    """Turn the first appearance of each term into a reference; it runs just before references are resolved."""

    default_priority = 5

    def run(self, **_: Any) -> None:
        """Link the terms of this page."""
        glossary = Path(self.env.srcdir) / "book" / "glossary.md"
        if not glossary.is_file():
            return
        for term in read(glossary.read_text(encoding="utf-8")):
            if belongs(term, self.env.docname):
                self.link(term)

    def link(self, term: Term) -> None:
        """Link the first appearance of one term, if there is any and its author did not link it."""
        looked_for, names = pattern(term), {name.lower() for name in term.names}
        for text in list(self.document.findall(nodes.Text)):
            around = _inside(text, (addnodes.pending_xref,))
            if around is not None and around.get("reftype") == "term" and str(around["reftarget"]).lower() in names:
                return
            found = looked_for.search(text)
            if not found or _inside(text, LEFT_ALONE) is not None:
                continue
            before, words, after = text[: found.start()], found[0], text[found.end() :]
            link = addnodes.pending_xref(
                "", refdomain="std", reftype="term", reftarget=term.names[0], refdoc=self.env.docname, refwarn=True
            )
            link += nodes.inline(words, words, classes=["xref", "std", "std-term"])
            pieces: list[nodes.Node] = [nodes.Text(before)] if before else []
            pieces += [link, *([nodes.Text(after)] if after else [])]
            text.parent.replace(text, pieces)
            return


def _inside(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> Any:
    """Return the nearest node around this one that is of these kinds or is no prose, or None."""
    while (node := node.parent) is not None:
        if isinstance(node, kinds) or APART & set(getattr(node, "attributes", {}).get("classes", [])):
            return node
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.add_post_transform(Link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
