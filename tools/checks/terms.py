"""The glossary: how each term is grounded, and that each chapter links the terms it uses.

What the build does (`book/_ext/terms.py`) is judged here by what it left in the pages: the first appearance of a term in a
chapter's prose, or an earlier one, is a link to the glossary.
"""

from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag

from checks import Problem, line_of
from checks.source import ROOT
from llminfra.notebook.terms import Term, belongs, pattern, read

GLOSSARY = "book/glossary.md"
AT_LEAST = 120
GROUNDED = re.compile(r"\$[^$]+\$|\{ref\}`|\]\([\w./-]+\.md#[\w-]+\)|\{cite\}`|\]\(https://| × | / ")
"""A formula, or a link to the place that measures it or says where the numbers come from."""
NO_PROSE = "pre, code, math, .math, h1, h2, h3, h4, figcaption, .caption, summary, .chapter-header, .twin-stamp, .widget, .cell, .predict, .quiz-item"


def problems(root: Path = ROOT) -> list[Problem]:
    """Return what is wrong with the glossary itself: too few terms, one without a formula or a link, one that comes twice."""
    text = (root / GLOSSARY).read_text(encoding="utf-8")
    terms = read(text)
    found = []
    if len(terms) < AT_LEAST:
        found.append(Problem(GLOSSARY, 1, f"has {len(terms)} terms, and at least {AT_LEAST} are wanted"))
    names: set[str] = set()
    for term in terms:
        line = line_of(text, term.names[0])
        if not GROUNDED.search(term.definition):
            found.append(
                Problem(GLOSSARY, line, f"“{term.names[0]}” has neither a formula nor a link to what measures it")
            )
        for name in term.names:
            if name.lower() in names:
                found.append(Problem(GLOSSARY, line, f"“{name}” comes twice"))
            names.add(name.lower())
    return sorted(found)


def unlinked(site: Path, root: Path = ROOT) -> tuple[list[Problem], int]:
    """Return the terms that a page of a built site uses in its prose before any link to them, and how many it links."""
    terms = read((root / GLOSSARY).read_text(encoding="utf-8"))
    found, linked = [], 0
    for file in [*sorted(site.glob("book/[0-9][0-9]-*.html")), *sorted(site.glob("exercises/**/*.html"))]:
        page = file.relative_to(site).as_posix()
        article = BeautifulSoup(file.read_bytes(), "html.parser").select_one("article")
        assert article is not None, page
        for apart in article.select(NO_PROSE):
            apart.decompose()
        pieces = [(text, _terms_linked(text)) for text in article.find_all(string=True)]
        for term in terms:
            if not belongs(term, page):
                continue
            ids = {f"term-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}" for name in term.names}
            looked_for = pattern(term)
            for text, link in pieces:
                if link is not None and link in ids:
                    linked += 1
                    break
                if link is None and not text.find_parent("a") and looked_for.search(text):
                    found.append(Problem(page, 0, _said(term, text)))
                    break
    return sorted(found), linked


def _terms_linked(text: NavigableString) -> str | None:
    """Return the id of the term to which the link around a text leads, if any."""
    link = text.find_parent("a")
    leads = str(link.get("href", "")) if isinstance(link, Tag) else ""
    return leads.partition("#")[2] if "glossary.html#term-" in leads else None


def _said(term: Term, text: str) -> str:
    return f"uses “{term.names[0]}” without a link to the glossary: “{' '.join(text.split())[:70]}”"
