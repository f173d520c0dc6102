"""Colours for PromQL as vLLM's metrics need it: Pygments' own lexer does not know that a name may hold a colon."""

from __future__ import annotations

from typing import Any

from pygments.lexer import inherit
from pygments.lexers.promql import PromQLLexer
from pygments.token import Name
from sphinx.application import Sphinx


class PromQL(PromQLLexer):
    """PromQL whose metric names are those of its grammar: `[a-zA-Z_:][a-zA-Z0-9_:]*`."""

    tokens = {"root": [(r"[a-zA-Z_]\w*:[\w:]*", Name.Variable), inherit]}  # noqa: RUF012 - as Pygments wants it


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the lexer."""
    app.add_lexer("promql", PromQL)
    return {"version": "1", "parallel_read_safe": True}
