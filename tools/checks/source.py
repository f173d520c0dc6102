"""A source page as what stands in it: fenced blocks and passages of prose, in order, with their lines.

Parsed by MyST's own parser, into the bodies of directives too, so that a block in a dropdown in a tab is found. A comment above
one excuses it from a check, and from that one alone: `% unchecked: reason` from the checks of code, `% figure: reason` from
the check of figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

ROOT = Path(__file__).resolve().parents[2]

# Directives whose body is no Markdown. The build, with warnings as errors, reads all but the code in them.
VERBATIM = {"code-cell", "code-block", "code", "literalinclude", "raw", "math", "bibliography", "chapter-header"}
EXCUSE = re.compile(r"^\s*(?:<!--)?\s*(unchecked|figure): +(\S.*?)\s*(?:-->)?\s*$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: `language` is the word after the fence, `directive` its name where that word is in braces."""

    path: str
    line: int
    language: str
    directive: str
    argument: str
    options: dict[str, Any]
    body: str
    body_line: int
    excuses: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Passage:
    """A heading, paragraph, list or table, as it stands in the source; `inside` names the directives around it."""

    path: str
    line: int
    kind: str
    text: str
    inside: tuple[str, ...] = ()
    excuses: dict[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """A source page: its path below the root, and its blocks and passages in order."""

    path: str
    items: list[Block | Passage] = field(default_factory=list)

    @property
    def blocks(self) -> list[Block]:
        """Return the fenced blocks."""
        return [item for item in self.items if isinstance(item, Block)]

    @property
    def passages(self) -> list[Passage]:
        """Return the prose."""
        return [item for item in self.items if isinstance(item, Passage)]


def sources(root: Path = ROOT) -> list[Path]:
    """Return every page whose blocks and claims are checked."""
    return [
        *sorted((root / "book").rglob("*.md")),
        *sorted((root / "exercises").rglob("*.md")),
        *(root / name for name in ("README.md", "CONTRIBUTING.md") if (root / name).is_file()),
    ]


@cache
def _parser() -> MarkdownIt:
    extensions = {"colon_fence", "deflist", "dollarmath", "fieldlist", "html_image", "attrs_inline"}
    return create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)


def read(path: Path, root: Path = ROOT) -> Page:
    """Return a page's blocks and passages."""
    page = Page(path.relative_to(root).as_posix())
    page.items.extend(_items(path.read_text(encoding="utf-8"), page.path, 1, ()))
    return page


def spans(passage: Passage) -> list[tuple[int, str]]:
    """Return the inline code of a passage, with its line in the page; roles and blocks inside of a list are none."""
    at, found = 0, []
    for token in _parser().parse(passage.text):
        for child in token.children or []:
            if child.type == "code_inline":
                words = child.content.split()
                spelt = r"\s+".join(re.escape(word).replace(r"\|", r"\\?\|") for word in words)
                place = re.compile(rf"(?<!`)`+\s*{spelt}\s*`+(?!`)").search(passage.text, at)
                at = place.end() if place else at
                line = passage.line + passage.text[: place.start() if place else at].count("\n")
                found.append((line, " ".join(words)))
    return found


def _items(text: str, path: str, first: int, inside: tuple[str, ...]) -> Iterator[Block | Passage]:
    """Yield what stands in Markdown whose first line is line `first` of the page."""
    lines = text.splitlines()
    excuses: dict[str, str] = {}
    skip_to = -1
    for token in _parser().parse(text):
        if token.map is None or token.map[0] < skip_to:
            continue
        start, end = token.map
        if token.type in ("myst_line_comment", "html_block"):
            comment = token.type == "myst_line_comment" or token.content.lstrip().startswith("<!--")
            excuses = {**excuses, **dict(EXCUSE.findall(token.content))} if comment else {}
            continue
        if token.type in ("fence", "colon_fence"):
            yield from _fence(token, path, first, inside, excuses)
        elif token.level == 0 and token.type in PASSAGES:
            source = "\n".join(lines[start:end])
            yield Passage(path, first + start, PASSAGES[token.type], source, inside, excuses)
            if any(fence in source for fence in ("```", ":::", "~~~")):
                excuses = {}
                continue  # a list that holds blocks: its tokens follow
            skip_to = end
        else:
            continue
        excuses = {}


PASSAGES = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "dl_open": "list",
    "blockquote_open": "quote",
    "table_open": "table",
}


def _fence(
    token: Token, path: str, first: int, inside: tuple[str, ...], excuses: dict[str, str]
) -> Iterator[Block | Passage]:
    assert token.map is not None
    info = token.info.strip()
    named = re.match(r"\{([^}]+)\}\s*(.*)", info, re.S)
    directive, argument = (named.group(1), named.group(2)) if named else ("", "")
    options, body, offset = _split(token.content) if named else ({}, token.content, 0)
    language = info.split()[0] if info and not named else ""
    if directive in ("code-block", "code"):
        language = argument
    elif directive == "literalinclude":
        language = str(options.get("language", ""))
    line = first + token.map[0]
    body_line = line + 1 + offset
    yield Block(path, line, language, directive, argument, options, body, body_line, excuses)
    if directive and directive not in VERBATIM:
        title = Passage(path, line, "title", argument, (*inside, directive), excuses)
        if argument and directive not in ("figure", "image", "include"):
            yield title
        yield from _items(body, path, body_line, (*inside, directive))


def _split(content: str) -> tuple[dict[str, Any], str, int]:
    """Return a directive's options, its body, and how many lines of the content stand before the body."""
    lines = content.splitlines()
    count = 0
    if lines and lines[0].strip() == "---":
        count = next((i for i, line in enumerate(lines[1:], 2) if line.strip() == "---"), len(lines))
        options = yaml.safe_load("\n".join(lines[1 : count - 1])) or {}
    else:
        while count < len(lines) and re.match(r":[\w-]+:", lines[count]):
            count += 1
        pairs = [re.match(r":([\w-]+):\s*(.*)", line) for line in lines[:count]]
        options = {pair.group(1): pair.group(2).strip("\"'") for pair in pairs if pair}
    return options, "\n".join(lines[count:]) + "\n", count
