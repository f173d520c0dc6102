"""Figures in prose: quantities with a unit, and claims of how many times or how much of something.

What is no figure here: small counts in words ("sixteen requests", what a page's own lab does or a reader pictures),
precisions ("in 16 bits"), the ends of a scale (100 %), units of account ("a million tokens"), and every number without
a unit: versions, dates, chapters, ports, statuses, rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
TEENS = ("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = {word: value for value, word in enumerate(UNITS + TEENS, 1)} | {
    word: 10 * tens for tens, word in enumerate(TENS, 2)
}
MAGNITUDES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
SHARES = {"twice": 2.0, "double": 2.0, "triple": 3.0, "half": 0.5}
SIZES = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}

_MANY = rf"(?:[ -](?:{'|'.join(MAGNITUDES)}))"
_DIGITS = rf"(?:\d+(?:,\d{{3}})*(?:\.\d+)?{_MANY}*)"
_WORD = rf"(?:(?:{'|'.join(WORDS)})\b(?:-(?:{'|'.join(UNITS[:9])}))?{_MANY}*)"
_ANY = rf"(?:{_DIGITS}|{_WORD})"
_JOIN = r"(?:\s?[–-]\s?|,? (?:to|and|or) )"
_START = r"(?<![\w.,#/$-])"
DIGITS = rf"{_START}{_DIGITS}(?:{_JOIN}{_DIGITS})*"
WORD = rf"\b{_WORD}(?:{_JOIN}{_WORD})*"
ANY = rf"{_START}{_ANY}(?:{_JOIN}{_ANY})*"
LIST = rf"{_START}{_DIGITS}(?:(?:, |{_JOIN}){_DIGITS})*"

_PERIOD = r"(?:second|minute|hour|day|week|month|year)\b"
_OF = r"(?:the|as|of|its|their|that|those|what|our|your)\b"
_SMALL = (
    r"(?:to|and|or|of|in|at|on|for|with|by|from|as|when|while|if|unless|before|after|until|is|are|was|an?|the|per) "
)
_COUNTED = (
    r"tokens?|requests?|users?|people|GPUs?|cards?|parameters?|prompts?|quer(?:y|ies)|documents?|vectors?|chunks?|words|"
    r"conversations?|customers?|nodes?|servers?|machines?|questions?|calls?|samples?|examples?|layers?|heads?|blocks?|"
    r"adapters?|experts?|engineers?|companies|organi[sz]ations|downloads|replicas?|pods|operations|dimensions?|"
    r"connections?|sessions?|tenants?|visits|cores?"
)
_SCORED = r"\b(?:recall|precision|accuracy|scores?|MRR|n?DCG|F1|AUC|faithfulness|similarity|correlation|probability)\b"
# In this order; what one has found is not looked at by the next.
PATTERNS = {
    "money": rf"\\?[$€£]\s?{_DIGITS}[kMB]?\b|(?:{ANY}|\ba) (?:US )?(?:dollars?|cents?|euros?)\b",
    "bandwidth": rf"{DIGITS}\s?(?:[KMGT]i?B|[KMGT]bit)(?:/s\b| (?:per|a) second\b)|{DIGITS}\s?[KMGT]bps\b",
    "speed": rf"{DIGITS}\s?(?:[KMGTP]?FLOPS?|[TP]OPS|(?:giga|tera|peta)flops?)\b(?:/s)?",
    "power": rf"{DIGITS}\s?(?:k?Wh?|MW|watts?|[MG]Hz)\b",
    "rate": rf"{ANY}\s+(?:(?!in |half )[\w-]+\s+){{0,3}}?(?:per|an?|each|every) {_PERIOD}|"
    rf"{DIGITS} ?\w*/(?:s|min|h|day|month|second|minute|hour|token|request|user|GPU)\b",
    "percent": rf"{DIGITS}\s?(?:%|per ?cent\b|percentage points?\b)",
    "factor": rf"{DIGITS}(?:\s?[x×](?!\w|\s*\d)|[ -]?fold\b| times\b(?! {_ANY}))|"
    rf"{WORD}(?:[ -]?fold\b| times (?:{_OF}|over\b|more\b|less\b|fewer\b|\w+er\b|an? (?!{_PERIOD})))|"
    rf"\bfactors? of (?:about |up to |more than |at least )?{_ANY}|"
    rf"(?<!which )(?<!other )(?<!first )(?<!second )(?<!last )\b(?:twice|half|double|triple|(?:a|one) (?:third|quarter|fifth|tenth)) {_OF}|"
    r"\b(?:two|three|four|nine)[ -](?:thirds|quarters|fifths|tenths)\b|"
    r"\b(?:above|below|over|under|about|nearly|almost|least|most|than|by|within) (?:an? |one )?(?:half|third|quarter|tenth)\b"
    r"(?! an? )|\b(?:doubl|tripl|quadrupl)e[sd]\b|\bhalve[sd]\b",
    "score": rf"{_SCORED}[^.;|]{{0,40}}?\b[01]\.\d+\b(?:{_JOIN}[01]\.\d+\b)?",
    "size": rf"{DIGITS}[\s-]?(?:[KMGTP]i?B|(?:kilo|mega|giga|tera)?bytes?)\b",
    "time": rf"{DIGITS}[ -]?(?:ms|µs|μs|(?:milli|micro)?seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b|"
    rf"{DIGITS} [sh]\b|{WORD}[ -](?:(?:milli|micro)?seconds?|minutes?|hours?)\b|"
    r"\bhalf an? (?:second|minute|hour|day)\b",
    "count": rf"{LIST}[\s-]+(?:(?!{_SMALL})[a-z-]+\s+){{0,2}}?(?:{_COUNTED})\b",
}
KINDS = {kind: re.compile(pattern, re.IGNORECASE if kind != "size" else 0) for kind, pattern in PATTERNS.items()}
NUMBER = re.compile(rf"(?<![\w.]){_ANY}\b", re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """A quantity in a text: its kind (a key of PATTERNS), its words, the values in them, and where it stands."""

    kind: str
    words: str
    values: tuple[float, ...]
    start: int
    end: int


def visible(text: str) -> str:
    """Return the words of Markdown, of the same length: code, roles, formulas, addresses and HTML are blank."""
    for pattern in (
        r"<!--.*?-->|<[/a-zA-Z][^>\n]*>",
        r"(?:\{[\w:-]+\})?(`+)(?!`).+?(?<!`)\1(?!`)",
        r"(?<=\])\([^)\n]*\)",
        r"https?://\S+",
        r"(?<!\\)\$(?=[^$]*[\\=^_{])[^$]+\$",
        r"[*]",
    ):
        text = re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
    return text.replace("\n", " ")


def value(words: str) -> float:
    """Return the value of one number in digits or words: "1,020", "ten thousand", "135 million"."""
    amount = 0.0
    for part in re.split(r"[ -]", words.lower().replace(",", "")):
        if part in MAGNITUDES:
            amount = (amount or 1) * MAGNITUDES[part]
        else:
            amount += WORDS[part] if part in WORDS else float(part)
    return amount


def values(text: str) -> tuple[float, ...]:
    """Return the values of all numbers in a text."""
    return tuple(value(found) for found in NUMBER.findall(text))


def bytes_of(figure: Figure) -> tuple[float, ...]:
    """Return the values of a figure with a prefix of bytes, in bytes: of GB and GiB each."""
    unit = re.search(r"([KMGTP])(i?)B", figure.words)
    if not unit:
        return figure.values
    return tuple(number * (1024 if unit[2] else 1000) ** SIZES[unit[1].lower()] for number in figure.values)


def find(text: str) -> list[Figure]:
    """Return the figures of a text that `visible` returned, in order."""
    found: list[Figure] = []
    taken = text
    for kind, pattern in KINDS.items():
        for match in pattern.finditer(taken):
            words = " ".join(match[0].split())
            share = SHARES.get(words.split()[0].lower())
            figure = Figure(kind, words, values(words) or ((share,) if share else ()), *match.span())
            if not (kind == "percent" and figure.values == (100,)):
                found.append(figure)
            taken = taken[: match.start()] + "\0" * len(match[0]) + taken[match.end() :]
    return sorted(found, key=lambda figure: figure.start)
