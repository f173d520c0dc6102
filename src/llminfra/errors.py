"""One tree of errors: each says in one line what is wrong, where, and what to do about it.

    LlminfraError
    ├── InputError       arguments of a command that cannot be used
    ├── ModelError       a model that cannot be made ready
    ├── EngineError      an engine that did not start or cannot be used; holds its log
    ├── LoadError        a load that must not or cannot be sent
    ├── EmbedError       an embedding model that cannot be used
    ├── StoreError       a vector store that cannot do what was asked
    ├── CorpusError      a document that cannot be read
    ├── LabelError       a labelled question that cannot be read
    ├── BudgetError      no passage fits into a prompt
    ├── ServiceError     a service of ours that did not start
    ├── ExerciseError    an exercise, or a submission to it, that cannot be read
    ├── QuizError        a question that cannot be read
    ├── ChapterError     a chapter that cannot be read or executed
    └── GpuCellError     a `%%gpu` cell that could run on no machine

`calc` raises ValueError, since its files run in MicroPython by themselves; the command line takes that for an InputError. A
claim that does not hold is `notebook.lab.CheckFailed`, an AssertionError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LlminfraError(Exception):
    """What a user of the course can cause, or has to know."""


class InputError(LlminfraError):
    """Arguments of a command that cannot be used."""


class ModelError(LlminfraError):
    """A model that cannot be made ready."""


class EngineError(LlminfraError):
    """An engine that did not start or cannot be used; `log` is all it wrote."""

    def __init__(self, message: str, log: str = ""):
        super().__init__(message)
        self.log = log


class LoadError(LlminfraError):
    """A load that must not or cannot be sent."""


class EmbedError(LlminfraError):
    """An embedding model that cannot be used."""


class StoreError(LlminfraError):
    """A vector store that cannot do what was asked."""


class CorpusError(LlminfraError):
    """A document that cannot be read."""


class LabelError(LlminfraError):
    """A labelled question that cannot be read."""


class BudgetError(LlminfraError):
    """No passage fits into a prompt."""


class ServiceError(LlminfraError):
    """A service of ours that did not start."""


class ExerciseError(LlminfraError):
    """An exercise, or a submission to it, that cannot be read."""


class QuizError(LlminfraError):
    """A question that cannot be read."""


class ChapterError(LlminfraError):
    """A chapter that cannot be read or executed."""


class GpuCellError(LlminfraError):
    """A `%%gpu` line or cell that could run on no machine."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that names the known word most like `name`, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line that an exception says, or its kind if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
