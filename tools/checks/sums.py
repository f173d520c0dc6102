"""Sums in prose come out: "16 GB / 800 GB/s is 0.02 s", "2 × 32 × 8 × 128 × 2 = 131,072", in text, tables and formulas.

A sum is at least two numbers with an operator between them, then a word or a sign that says what they come to, and a number.
Numbers may have a unit; a unit that is known is reckoned with, so that 16 GB / 800 GB/s is no 20 ms and no 0.02 GB; any other
word counts as no unit. What is stated may be rounded to its last digit; after "about", "nearly" or ≈ it may be 5 % off.
A range ("5–10"), a date or a product without a result is no sum. A sum that is wrong on purpose has the line
`% figure: reason` above it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checks import Problem, source
from checks.source import ROOT, Page

PREFIXES = {"K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
Dimension = tuple[tuple[str, int], ...]
UNITS: dict[str, tuple[float, Dimension]] = {
    **{f"{p}B": (scale, (("byte", 1),)) for p, scale in PREFIXES.items()},
    **{f"{p}iB": (1024.0**power, (("byte", 1),)) for power, p in enumerate("KMGTP", 1)},
    **{f"{p}FLOP": (scale, (("flop", 1),)) for p, scale in PREFIXES.items()},
    "B": (1, (("byte", 1),)),
    "byte": (1, (("byte", 1),)),
    "bytes": (1, (("byte", 1),)),
    "s": (1, (("second", 1),)),
    "second": (1, (("second", 1),)),
    "seconds": (1, (("second", 1),)),
    "ms": (1e-3, (("second", 1),)),
    "milliseconds": (1e-3, (("second", 1),)),
    "µs": (1e-6, (("second", 1),)),
    "%": (0.01, ()),
    "million": (1e6, ()),
    "billion": (1e9, ()),
}
LATEX = {r"\times": "×", r"\cdot": "×", r"\div": "/", r"\approx": "≈", r"\,": " ", r"\;": " ", r"\%": "%", r"\_": "_"}

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_UNIT = r"(?:[ -]?(?:%|(?!times\b|divided\b|plus\b|minus\b)[A-Za-zµ]+(?:/[A-Za-z]+)?))?"
_TERM = rf"\(*\$?{_NUMBER}{_UNIT}\)*"
_OPERATOR = r"\s*(?:[×·*/÷+−]|\b(?:times|divided by|plus|minus)\b|(?<=\s)-(?=\s))\s*"
_COMES_TO = r"\s*(?:=|≈|(?:,? (?:is|are|makes?|gives?|comes to|or|about|nearly))\b)\s*(?:about |nearly |roughly |≈ ?)?"
SUM = re.compile(
    rf"(?<![\d.,–/*×·+^_{{-])({_TERM}(?:{_OPERATOR}{_TERM})+)({_COMES_TO})({_TERM})(?![\d–])(?!\s*[×·*÷/+−^]\s*[\d(])"
)
ABOUT = re.compile(r"≈|about|nearly|roughly")
TOKEN = re.compile(rf"({_NUMBER})({_UNIT})|([×·*/÷+−()-]|times|divided by|plus|minus)")
MARGIN = 0.05


@dataclass(frozen=True)
class Amount:
    """A value in base units, and its dimension; `exact` is half of the last digit that is written."""

    value: float
    dimension: Dimension
    exact: float = 0.0

    def times(self, other: Amount, sign: int) -> Amount:
        """Return the product, or for sign -1 the quotient."""
        powers = Counter(dict(self.dimension))
        for name, power in other.dimension:
            powers[name] += sign * power
        return Amount(self.value * other.value**sign, tuple(sorted((n, p) for n, p in powers.items() if p)))


def problems(pages: list[Page]) -> list[Problem]:
    """Return each sum that does not come out."""
    return sorted(problem for page in pages for _, problem in _judged(page) if problem)


def of_course(root: Path = ROOT) -> tuple[list[Problem], Counter[str]]:
    """Return `problems` of every page of the course, and how many sums each has."""
    judged = [
        (page.path, one) for path in source.sources(root) for page in [source.read(path, root)] for one in _judged(page)
    ]
    return sorted(problem for _, (_, problem) in judged if problem), Counter(path for path, _ in judged)


def _judged(page: Page) -> Iterator[tuple[str, Problem | None]]:
    """Yield every sum of a page, with what is wrong with it or None."""
    for item in page.items:
        if isinstance(item, source.Block):
            text, line = (item.body, item.body_line) if item.directive == "math" else ("", 0)
        else:
            text, line = item.text, item.line
        plain = _plain(text)
        for found in SUM.finditer(plain):
            reason = "" if item.excuses.get("figure") else wrong(found)
            at = line + plain[: found.start()].count("\n")
            yield found[0], Problem(page.path, at, f"“{' '.join(found[0].split())}”: {reason}") if reason else None


def _plain(text: str) -> str:
    """Return a text without marks: formulas and emphasis as they are read, code and addresses blank, lines where they were."""
    text = re.sub(
        r"(?:\{[\w:-]+\})?(`+)(?!`).+?(?<!`)\1(?!`)|https?://\S+",
        lambda m: re.sub(r"[^\n]", " ", m[0]),
        text,
        flags=re.S,
    )
    text = re.sub(r"\\text\{([^}]*)\}", r"\1", text)
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1 / \2", text)
    for mark, sign in LATEX.items():
        text = text.replace(mark, sign)
    return re.sub(r"\*\*|(?<!\d)\$|\$(?!\d)|(?<=\w)\*(?=\W)|(?<=\W)\*(?=\w)", "", text)


def wrong(found: re.Match[str]) -> str:
    """Return what a sum comes to where it is not what it says, or ""."""
    try:
        made = _value(found[1])
    except (ValueError, ZeroDivisionError):
        return "cannot be reckoned: write it with one operator after another, and its units"
    said = _value(found[3])
    named = bool(said.dimension) and bool(made.dimension)
    if named and said.dimension != made.dimension:
        return f"has another unit: it comes to {_told(made)}"
    # A result without a known unit is in the unit of what is reckoned, or in its own.
    scale = 1.0 if named or not made.dimension else _unit_scale(found[1])
    difference = abs(made.value / scale - said.value)
    allowed = max(said.exact, MARGIN * abs(said.value) if ABOUT.search(found[2]) else 0.0)
    return (
        "" if difference <= allowed * (1 + 1e-9) + 1e-12 * abs(said.value) else f"it comes to {made.value / scale:,.6g}"
    )


def _unit_scale(text: str) -> float:
    """Return the scale of the first unit of a sum, in which a result without unit is meant."""
    first = next((match for match in TOKEN.finditer(text) if match[2] and _unit(match[2])[1]), None)
    return _unit(first[2])[0] if first else 1.0


def _told(amount: Amount) -> str:
    return f"{amount.value:,.6g} " + " ".join(
        f"{name}^{power}" if power != 1 else name for name, power in amount.dimension
    )


def _unit(words: str) -> tuple[float, Dimension]:
    """Return the scale and dimension of a unit; no dimension and scale 1 for a word that is none."""
    name = words.strip(" -")
    over, _, under = name.partition("/")
    if under in ("s", "second") and over in UNITS:
        scale, dimension = UNITS[over]
        return scale, tuple(sorted((*dimension, ("second", -1))))
    return UNITS.get(name, (1.0, ()))


def _value(text: str) -> Amount:
    """Return what a sum comes to: brackets, then products, then sums, from the left. Raises ValueError for what is no sum."""
    tokens = list(TOKEN.finditer(text))
    total = _added(tokens)
    if tokens:
        raise ValueError(text)
    return total


def _added(tokens: list[re.Match[str]]) -> Amount:
    """Take a sum of products off the tokens."""
    total = _multiplied(tokens)
    while tokens and tokens[0][3] in ("+", "−", "-", "plus", "minus"):
        sign = 1 if tokens.pop(0)[3] in ("+", "plus") else -1
        term = _multiplied(tokens)
        if total.dimension and term.dimension and total.dimension != term.dimension:
            raise ValueError("amounts of different units are added")
        total = Amount(total.value + sign * term.value, total.dimension or term.dimension)
    return total


def _multiplied(tokens: list[re.Match[str]]) -> Amount:
    """Take a product off the tokens."""
    product = _single(tokens)
    while tokens and tokens[0][3] in ("×", "·", "*", "/", "÷", "times", "divided by"):
        sign = -1 if tokens.pop(0)[3] in ("/", "÷", "divided by") else 1
        product = product.times(_single(tokens), sign)
    return product


def _single(tokens: list[re.Match[str]]) -> Amount:
    """Take a number with its unit, or a bracket, off the tokens."""
    if not tokens:
        raise ValueError("a number is missing")
    token = tokens.pop(0)
    if token[3] == "(":
        inner = _added(tokens)
        if not tokens or tokens.pop(0)[3] != ")":
            raise ValueError("a bracket is not closed")
        return inner
    if not token[1]:
        raise ValueError(f"no number: {token[0]}")
    scale, dimension = _unit(token[2])
    digits = len(token[1].partition(".")[2])
    round_zeros = len(token[1]) - len(token[1].rstrip("0")) if not digits and "," not in token[1] else 0
    half = 0.5 * 10.0 ** (round_zeros if round_zeros > 1 else -digits)
    return Amount(float(token[1].replace(",", "")) * scale, dimension, half * scale)
