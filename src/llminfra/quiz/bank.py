"""The questions of `quiz/questions.yml`, with every number computed by `calc`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import yaml

from ..calc import cost, kvblocks, lora, memory, parallel, planner, roofline, tables
from ..errors import QuizError

ROOT = Path(__file__).parents[3]
FILE = ROOT / "quiz" / "questions.yml"
NAMES = {
    "cost": cost,
    "kvblocks": kvblocks,
    "lora": lora,
    "memory": memory,
    "parallel": parallel,
    "planner": planner,
    "roofline": roofline,
    "tables": tables,
    **{
        name: function
        for name, function in (("round", round), ("ceil", math.ceil), ("floor", math.floor), ("min", min))
    },
}
"""What an expression of `numbers` may name, besides the numbers above it."""


@dataclass(frozen=True)
class Option:
    """An option in Markdown, whether it is right, why or why not, and the mistake that leads to it where that is computed."""

    text: str
    right: bool
    because: str
    mistake: str = ""


@dataclass(frozen=True)
class Parsons:
    """Lines to put in order, lines that don't belong, the parser that reads the result (vllm, kubernetes), and why it is so."""

    lines: tuple[str, ...]
    distractors: tuple[str, ...]
    parser: str
    because: str


@dataclass(frozen=True)
class Question:
    """A question: its chapter, the section that it is asked after, the objective, its kind (recall, apply, analyse) and use (check, module)."""

    id: str
    chapter: int
    section: str
    use: str
    objective: str
    kind: str
    stem: str
    source: str
    options: tuple[Option, ...] = ()
    parsons: Parsons | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> Option:
        """The right option; the first of them where the bank is wrong. Raises StopIteration without one."""
        return next(option for option in self.options if option.right)


def html(text: str) -> str:
    """Return a text of the bank, which has code in backquotes and no other markup, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def load(path: Path = FILE) -> list[Question]:
    """Return the questions in their order. Raises QuizError that names the question and what is wrong in it."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise QuizError(f"{path}: {error}") from None
    return [_question(one) for one in found]


@cache
def questions() -> tuple[Question, ...]:
    """Return the course's questions, read once. Raises QuizError."""
    return tuple(load())


def _question(found: dict[str, Any]) -> Question:
    try:
        numbers: dict[str, Any] = {}
        for name, expression in found.get("numbers", {}).items():
            numbers[name] = eval(str(expression), {"__builtins__": {}}, {**NAMES, **numbers})

        def said(text: str) -> str:
            return " ".join(text.format(**numbers).split()) if numbers else " ".join(text.split())

        options = tuple(
            Option(said(one["text"]), bool(one.get("right")), said(one["because"]), one.get("mistake", ""))
            for one in found.get("options", [])
        )
        parsons = found.get("parsons")
        ordered = parsons and Parsons(
            tuple(parsons["lines"]), tuple(parsons["distractors"]), parsons["parser"], said(parsons["because"])
        )
        plain = {name: found[name] for name in ("id", "chapter", "section", "use", "objective", "kind", "source")}
        return Question(**plain, stem=said(found["stem"]), options=options, parsons=ordered, numbers=numbers)
    except Exception as error:
        raise QuizError(f"question {found.get('id', found)!r}: {type(error).__name__}: {error}") from error
