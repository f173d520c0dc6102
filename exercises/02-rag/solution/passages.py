"""Documents cut into passages."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORDS = 120
"""Words that a passage holds at most."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document: the headings above it, outermost first, and its own text."""

    document: str
    heading: str
    text: str

    @property
    def searched(self) -> str:
        """What search reads: a passage seldom names the subject of its document, and its headings do."""
        # solution R2
        # starter: return self.text
        return f"{self.heading}\n{self.text}"
        # end solution


def cut(document: str, text: str) -> list[Passage]:
    """Return the passages of a document in Markdown, in order."""
    # solution R1
    # starter: raise NotImplementedError
    passages: list[Passage] = []
    headings: list[str] = []
    units: list[str] = []

    def close() -> None:
        heading = " > ".join(headings)
        packed: list[str] = []
        for unit in units:
            if packed and len(packed[-1].split()) + len(unit.split()) <= WORDS:
                packed[-1] += f"\n{unit}"
            else:
                packed.append(unit)
        passages.extend(Passage(document, heading, one) for one in packed)
        units.clear()

    for block in re.split(r"\n\s*\n|\n(?=[-|#])|(?<=\n)(?=#)", text.strip()):
        marks = re.match(r"(#+)\s+(.*)", block.strip())
        if marks:
            close()
            del headings[len(marks[1]) - 1 :]
            headings.append(marks[2])
        else:
            units += [" ".join(one.split()) for one in re.split(r"(?<=[.!?])\s+", block) if one.strip()]
    close()
    return passages
    # end solution
