"""The terms of `book/glossary.md`, and where a page uses one."""

from __future__ import annotations

import re
from dataclasses import dataclass

BLOCK = re.compile(r"^```\{glossary\}\n(.*?)^```$", re.M | re.S)
ENTRY = re.compile(r"^((?:\S.*\n)+)((?:[ ]+\S.*\n?)+)", re.M)
EVERYDAY = {
    *(
        "Alias",
        "Block",
        "Canary",
        "Checkpoint",
        "Counter",
        "Drain",
        "Gauge",
        "Kernel",
        "Parameter",
        "Percentile",
        "Rank",
    ),
    *("Replica", "Sampling", "Scheduler", "Segment", "Shard", "Slot", "Snapshot", "Step", "Utilisation"),
}
"""Terms that are words of everyday English, or of other fields: linked only in the chapter to which their entry leads."""


@dataclass(frozen=True)
class Term:
    """An entry of the glossary: its names, the first being the one it is sorted by, and its definition in Markdown."""

    names: tuple[str, ...]
    definition: str


def read(glossary: str) -> list[Term]:
    """Return the entries of a glossary, the longest names first: of "GPU utilisation" nothing is left for "utilisation"."""
    found = [
        Term(tuple(names.splitlines()), " ".join(definition.split()))
        for block in BLOCK.findall(glossary)
        for names, definition in ENTRY.findall(block)
    ]
    return sorted(found, key=lambda term: (-len(term.names[0]), term.names))


def pattern(term: Term) -> re.Pattern[str]:
    """Return what finds a term in prose, by any of its names, in the plural too; abbreviations in capitals only as such."""
    ways = []
    for name in term.names:
        spelt = re.escape(name).replace("'", "['’]").replace(r"\ ", r"[\s-]")
        abbreviated = sum(letter.isupper() for letter in name) > 1
        ways.append(spelt if abbreviated else f"(?i:{spelt})")
    return re.compile(rf"(?<![\w-])(?:{'|'.join(ways)})(?:s|es)?(?![\w-])")


def belongs(term: Term, page: str) -> bool:
    """Return whether the page of this name links a term: any chapter or exercise does, but for an `EVERYDAY` word."""
    if not re.match(r"(book/)?\d\d-|exercises/", page):
        return False
    if term.names[0] not in EVERYDAY:
        return True
    leads = re.findall(r"\]\((\d\d)-[\w-]+\.md", term.definition) + re.findall(r"<ch(\d)-", term.definition)
    return page.removeprefix("book/")[:2] in [number.zfill(2) for number in leads]
