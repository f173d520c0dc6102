"""A chapter's Markdown as JupyterLab can show it: what only the site's builder understands becomes plain Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .chapter import ROOT

FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\}[ ]*(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.M | re.S
)
OPTION = re.compile(r"\A:([\w-]+):[ ]*(.*)\n?")
DROPPED = {"chapter-header"}


@dataclass(frozen=True)
class Site:
    """Where the pages of the built site are, seen from a notebook: `base` is the address of its `book/`."""

    base: str
    page: str

    @property
    def here(self) -> str:
        """The address of the notebook's own page."""
        return f"{self.base}/{self.page}.html"


@cache
def labels(root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Return, for each label `(name)=` of a page, the page and the heading that follows it."""
    found = {}
    for page in sorted((root / "book").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for label, heading in re.findall(r"^\(([\w-]+)\)=\n#+ (.+)$", text, re.M):
            found[label] = (page.stem, heading)
    return found


def readable(text: str, site: Site, root: Path = ROOT) -> str:
    """Return Markdown without roles, directives, labels and comments: links lead to the site, admonitions are quotations.

    A directive that has no likeness in plain Markdown, such as a widget, becomes a link to the page.
    """
    text = re.sub(r"^%[^\n]*\n|^\([\w-]+\)=\n", "", text, flags=re.M)
    text = FENCE.sub(lambda found: _directive(found, site, root), text)
    text = re.sub(r"\{ref\}`(?:([^`<]+?) ?<)?([\w-]+)>?`", lambda found: _reference(found, site, root), text)
    text = re.sub(r"\{(?:term|abbr)\}`([^`<]+?)(?: ?<[^>`]+>)?`", r"\1", text)
    text = re.sub(r"\{cite(?::\w+)?\}`([^`]+)`", rf"[(\1)]({site.base}/references.html)", text)
    text = re.sub(r"\]\((?!\w+:|/|#)([\w./-]+)\.md(#[\w-]+)?\)", rf"]({site.base}/\1.html\2)", text)
    return re.sub(r"\]\(#([\w-]+)\)", rf"]({site.here}#\1)", text).strip("\n")


def _reference(found: re.Match[str], site: Site, root: Path) -> str:
    page, heading = labels(root).get(found[2], (site.page, found[2]))
    return f"[{found[1] or heading}]({site.base}/{page}.html#{found[2]})"


def _directive(found: re.Match[str], site: Site, root: Path) -> str:
    name, title, body = found["name"], found["title"].strip(), found["body"]
    options = {}
    while option := OPTION.match(body):
        options[option[1]] = option[2].strip("\"'")
        body = body[option.end() :]
    if name in DROPPED:
        return ""
    if name == "code-block":
        return f"```{title}\n{body}```"
    made = SHOWN.get(name)
    if made:
        return made(title, options, body.strip(), site)
    inside = readable(body, site, root)
    if name == "dropdown":
        return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"
    lead = f"**{title or name.capitalize()}**\n\n{inside}".strip()
    return "\n".join(f"> {line}".rstrip() for line in lead.split("\n"))


def _figure(title: str, options: dict[str, str], body: str, site: Site) -> str:
    image = f"{site.base}/../_images/{Path(title).name}"
    return f"![{options.get('alt', body)}]({image})\n\n*{body}*" if body else f"![{options.get('alt', '')}]({image})"


def _widget(title: str, _options: dict[str, str], _body: str, site: Site) -> str:
    return f"> The page has an [interactive {title}]({site.here}#{title}-widget) here."


def _literal(title: str, _options: dict[str, str], _body: str, site: Site) -> str:
    return f"> The page shows lines of `{title.removeprefix('../')}` [here]({site.here})."


SHOWN: dict[str, Callable[[str, dict[str, str], str, Site], str]] = {
    "figure": _figure,
    "image": _figure,
    "widget": _widget,
    "literalinclude": _literal,
}
