"""What keeps the course true: checks of its sources and of its built pages. `make check` runs them all.

Each check is a function that returns what is wrong, a `Problem` each; an empty list is a pass. The tests under
`tests/checks` call them on the course itself, and on deliberately bad pages that they must refuse.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """Something false: a file below the root (or a page of the site), its line from 1 (0: the whole file), and why."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.reason}"


# What is wrong with a text: (line from 1, or 0 where unknown; reason).
Faults = list[tuple[int, str]]


def line_of(text: str, name: str) -> int:
    """Return the first line of a text that holds a name, or 0."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if name and name in line), 0)
