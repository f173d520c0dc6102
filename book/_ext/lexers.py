"""How pages show code: a lexer for PromQL as vLLM's metrics need it, and HTML with a span only where the colour changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pygments.formatters import HtmlFormatter
from pygments.lexer import inherit
from pygments.lexers.promql import PromQLLexer
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Generic, Name, Token
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.highlighting import PygmentsBridge

DARK = "a11y-high-contrast-dark"  # the light one is in _config.yml
# Other style sheets and the search index know these by their classes.
NAMED = {Generic.Prompt: "gp"}


class PromQL(PromQLLexer):
    """PromQL whose metric names are those of its grammar: `[a-zA-Z_:][a-zA-Z0-9_:]*`."""

    tokens = {"root": [(r"[a-zA-Z_]\w*:[\w:]*", Name.Variable), inherit]}  # noqa: RUF012 - as Pygments wants it


def classes(*styles: str) -> dict[Any, str]:
    """Return a class for each standard type of token: the same for those that look alike in all styles, "" for plain text."""
    tables = [get_style_by_name(name) for name in styles]
    found: dict[Any, str] = {}
    first = {_look(tables, Token): ""}
    for kind, short in sorted(STANDARD_TYPES.items(), key=lambda entry: len(entry[1])):
        found[kind] = NAMED.get(kind) or first.setdefault(_look(tables, kind), short)
    return found


def _look(tables: list[Any], kind: Any) -> tuple[str, ...]:
    return tuple(str(table.style_for_token(kind)) for table in tables)


class Joined(HtmlFormatter):
    """HTML in which neighbours that look alike share a span, and plain text has none: a third of the spans of Pygments."""

    classes: dict[Any, str] = {}  # noqa: RUF012 - set once the styles are known

    def _get_css_class(self, ttype: Any) -> str:
        while ttype not in self.classes:
            ttype = ttype.parent
        return self.classes[ttype]

    _get_css_classes = _get_css_class

    def _format_lines(self, tokensource: Any) -> Any:
        return super()._format_lines(spread(tokensource))


def spread(tokens: Any) -> Iterator[tuple[Any, str]]:
    """Give white space the type of what stands before it in its line, so that it parts no neighbours."""
    last = Token
    for kind, text in tokens:
        last = last if text.isspace() and "\n" not in text else kind
        yield last, text
        if "\n" in text:
            last = Token


def choose(app: Sphinx, config: Config) -> None:
    """Take the classes from the light style and the dark one."""
    Joined.classes = classes(config.pygments_style, DARK)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the lexer and the formatter."""
    app.add_lexer("promql", PromQL)
    app.connect("config-inited", choose)
    PygmentsBridge.html_formatter = Joined
    return {"version": "1", "parallel_read_safe": True}
