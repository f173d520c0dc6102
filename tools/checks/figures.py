"""Every figure from elsewhere has a source in reach; prices and specifications come from the data files only.

`quantities` finds the figures of a page's prose. Each is one of these, asked in this order, or else a problem:

- **of the data files**: a price per hour, a card's memory, bandwidth, speed or power. Prose that repeats one is refused
  even with a link, since it would stay when the file changes; a cell or the chapter's header shows it, with its date.
- **sourced**: in the same paragraph, list item or table row, in the header of its table, or in the paragraph that leads
  in, stands a citation that the bibliography has, a link to another site, a link to a place of the course, or, in
  inline code, a file of this repository or of the installed engine, or a target of the Makefile that measures it. So
  is a figure said again in the section that gave its source, and a count of a model's parts that models.json has.
- **our own**: a count, size or time that the code under its heading holds (cells, and files shown); a ratio or share
  that a `check` there holds, or as a fraction any of that code; a time or size that its sentence says of the course's labs and exercises.
- **given**: a question in a dropdown states values and its answer reckons with them. They are made up, so one that is a
  card's price or property in the data files is refused there too. Where the question states none, the answer is prose.
- **an illustration**, if `such as` or `say` stands before it.
- **excused** by the line above: `% figure: reason`. An excuse that excuses nothing is refused.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pybtex.database import BibliographyData, parse_file

from checks import Problem, quantities
from checks.quantities import Figure
from checks.source import ROOT, VERBATIM, Block, Page, Passage, read, sources
from llminfra.notebook.chapter import as_python

BIBLIOGRAPHY = "book/references.bib"
DATA = ROOT / "src" / "llminfra" / "calc" / "data"
STALE_DAYS = 180
Table = Counter[tuple[str, str]]

CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
LINKED = re.compile(r"https?://|\{(?:num)?ref\}`|\]\([\w./-]*#[\w-]+\)")
CODE = re.compile(r"(\{[\w:-]+\})?`([^`\n]+)`")  # a role, or code
CARD = re.compile(
    r"\b(?:T4|L4|L40S?|A10G?|A30|A40|A100|H100|H200|H800|GH200|G?B[123]00|V100|P100|MI\d{3}X?|RTX ?\d{4}|TPU ?v\d\w*)(?=s?\b)"
)
HARDWARE = re.compile(CARD.pattern + r"|\b(?:GPUs?|graphics|cards?|accelerators?|HBM\w*|VRAM)\b")
NAMED = re.compile(r"\b(A100|H100)[ -](?:40|80)[ -]?GB\b|\b(?:40|80)[ -]?GB (A100|H100)\b")
PRICED = re.compile(r"\s*(?:/|(?:per|an?|each|every)\s)", re.IGNORECASE)
LABS = re.compile(r"\b(?:labs?|exercises?|quiz|(?<!of )course)\b", re.IGNORECASE)
ILLUSTRATED = re.compile(r"(?:such as|say,?|for example,?|e\.g\.) [\"“‘']?(?:about |at least |up to )?$", re.IGNORECASE)
# The unit in the head of a column: in brackets, or its last word.
UNIT = re.compile(
    r"\(([^)]+)\)|(?<!\S)(\S+/\S+|[KMGTP]i?B|[mµ]?s|%|×|\w*FLOPS|W|watts|seconds|minutes|tokens|requests)$"
)
# Calls whose results are prices, or rest on a card's properties.
DATED = re.compile(r"\b(?:tables\.(?:prices?|gpus?)|memory\.(?:plan|fits|max_concurrent)|roofline\.\w+|cost\.\w+)\(")
PARTS = {"parameter": ("parameters",), "layer": ("layers",), "head": ("heads", "kv_heads"), "dimension": ("hidden",)}


@dataclass
class Section:
    """What stands under a heading: its code, the numbers of that and of its checks, the figures that have a source."""

    code: str = ""
    numbers: set[float] = field(default_factory=set)
    checked: set[float] = field(default_factory=set)
    sourced: set[float] = field(default_factory=set)


@dataclass(frozen=True)
class Reach:
    """A piece of a page whose figures are judged together: its text, and the text around it that may hold their source."""

    line: int
    text: str
    around: str = ""


def problems(pages: list[Page], root: Path = ROOT) -> tuple[list[Problem], Table]:
    """Return what is wrong with the figures and citations of these pages, and how many are sourced, own, excused."""
    bibliography = parse_file(str(root / BIBLIOGRAPHY)) if (root / BIBLIOGRAPHY).is_file() else BibliographyData()
    table: Table = Counter()
    found = _entries(bibliography, root)
    for page in pages:
        found += [*_page(page, set(bibliography.entries), root, table), *_dated(page)]
    return sorted(found), table


def of_course(root: Path = ROOT) -> tuple[list[Problem], Table]:
    """Return `problems` of every page of the site, and of README.md.

    Exercises are left out: the figures of a brief are what it asks for, and its grader holds submissions to them.
    """
    asked = root / "exercises"
    pages = [path for path in sources(root) if path.name != "CONTRIBUTING.md" and asked not in path.parents]
    return problems([read(path, root) for path in pages], root)


def rows(table: Table) -> list[str]:
    """Return the table as lines: a page and how many of its figures are sourced, our own, excused."""
    kinds = ("sourced", "own", "excused")
    pages = sorted({page for page, _ in table})
    return [f"{page}: " + ", ".join(f"{table[page, kind]} {kind}" for kind in kinds) for page in pages]


def stale(today: date) -> list[str]:
    """Return a line for each source of the data files that was read more than STALE_DAYS before a day."""
    found = []
    for path in sorted(DATA.glob("*.json")):
        for key, source in _data(path.stem).get("sources", {}).items():
            age = (today - date.fromisoformat(source["read"])).days
            if age > STALE_DAYS:
                found.append(f"{path.name}: {key} was read {age} days ago; look at {source['url']} again")
    return found


# The page.


def _page(page: Page, keys: set[str], root: Path, table: Table) -> Iterator[Problem]:
    """Yield what is wrong with a page's figures and citations; count the others."""
    sections = _sections(page, root)
    previous: Passage | None = None
    given = False
    for at, item in enumerate(page.items):
        excuse = item.excuses.get("figure", "")
        if isinstance(item, Block):
            if excuse and item.directive in VERBATIM | {""}:
                yield Problem(page.path, item.line, f"code has no figures to excuse: “{excuse}” excuses nothing")
            previous = None if item.directive in ("", "code-cell", "literalinclude") else previous
            continue
        unknown = {key.strip() for keys_ in CITED.findall(item.text) for key in keys_.split(",")} - keys
        yield from (Problem(page.path, item.line, f"{BIBLIOGRAPHY} has no {key}") for key in sorted(unknown))
        if item.kind == "title" and item.inside[-1] == "dropdown":
            given = item.text.endswith("?") and bool(quantities.values(item.text))
        exercise = given and "dropdown" in item.inside
        excused = 0
        for reach in _reaches(item, previous):
            sourced = _sourced(reach.text + reach.around, keys, root)
            for figure in _figures(reach.text):
                reason = _refused(figure, reach.text, exercise)
                kind = "" if reason else "own" if exercise else _kind(figure, reach.text, sourced, sections[at])
                if kind == "sourced":
                    sections[at].sourced |= set(figure.values)
                if not kind and excuse:
                    kind = "excused"
                    excused += 1
                if kind:
                    table[page.path, kind] += 1
                    continue
                line = reach.line + reach.text[: figure.start].count("\n")
                yield Problem(page.path, line, reason or f"“{figure.words}” has no source in reach: {ADVICE}")
        if excuse and not excused and item.kind != "title":
            yield Problem(page.path, item.line, f"no figure here needs its excuse, “{excuse}”")
        previous = item


ADVICE = "cite or link one, link to the cell that measured it, or say `% figure: reason` above"


def _sections(page: Page, root: Path) -> list[Section]:
    """Return the section of each item, with the numbers of the code in it."""
    section = Section()
    by_item = []
    for item in page.items:
        if isinstance(item, Passage) and item.kind == "heading" and not item.inside:
            section = Section()
        if isinstance(item, Block) and item.directive in ("", "code-cell", "code-block", "literalinclude"):
            shown = (root / page.path).parent / item.argument
            if item.directive == "literalinclude" and shown.is_file():
                code = shown.read_text(encoding="utf-8")
            else:
                code = item.body
            code = re.sub(r"(?:^|\s)#.*$", "", code, flags=re.MULTILINE)  # what a comment says is prose again
            numbers, checked = _numbers(code)
            section.code += code
            section.numbers |= numbers
            section.checked |= checked
        by_item.append(section)
    return by_item


def _numbers(code: str) -> tuple[set[float], set[float]]:
    """Return the numbers of code, with what its constant expressions come to, and those that its `check`s hold."""
    numbers = {float(found.replace(",", "")) for found in re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", code)}
    checked: set[float] = set()
    try:
        tree = ast.parse(as_python(code))
    except SyntaxError:
        return numbers, checked
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            numbers.add(float(ast.literal_eval(node)))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            base, power = node.left, node.right
            if isinstance(base, ast.Constant) and isinstance(power, ast.Constant):
                numbers.add(float(ast.literal_eval(base)) ** ast.literal_eval(power))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check":
            checked |= set(quantities.values(ast.unparse(node)))
            checked |= {share for word, share in quantities.SHARES.items() if word in ast.unparse(node)}
    return numbers, checked


def _reaches(item: Passage, previous: Passage | None) -> Iterator[Reach]:
    """Yield a passage in the pieces that need a source of their own: paragraphs, items of a list, rows of a table."""
    lines = item.text.split("\n")
    lead = previous.text if previous and previous.kind in ("paragraph", "title") else ""
    if item.kind == "table":
        header = lines[0]
        for number, row in enumerate(lines[2:], item.line + 2):
            yield Reach(number, _with_units(row, header), f"\n{header}\n{lead}")
        return
    starts = [0]
    if item.kind == "list":
        indent = len(lines[0]) - len(lines[0].lstrip())
        starts = [n for n, line in enumerate(lines) if re.match(rf" {{{indent}}}(?:[-*+:]|\d+[.)])\s", line)] or [0]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        around = f"\n{lead}" if item.kind == "list" or lead.rstrip().endswith(":") else ""
        yield Reach(item.line + start, "\n".join(lines[start:end]), around)


def _with_units(row: str, header: str) -> str:
    """Return a table's row where a cell that is only a number carries the unit of its column."""
    cells, units = row.strip().strip("|").split("|"), header.strip().strip("|").split("|")
    joined = []
    for cell, unit in zip(cells, units, strict=False):
        bare = re.fullmatch(r"\s*[~≈<>]?\s*([\d,.]+(?:[–-][\d,.]+)?)\s*", cell)
        written = UNIT.search(unit.strip())
        if bare and re.search(r"\$|\b(?:USD|dollars?|price)\b", unit, re.IGNORECASE):
            joined.append(f" ${bare[1]} per unit ")
        elif bare and written:
            joined.append(f" {bare[1]} {written[1] or written[2]} ")
        else:
            joined.append(cell)
    return "|".join(joined)


def _figures(text: str) -> list[Figure]:
    words = NAMED.sub(lambda name: (name[1] or name[2]).ljust(len(name[0])), quantities.visible(text))
    return quantities.find(words)


# What becomes of a figure.


def _refused(figure: Figure, text: str, exercise: bool) -> str:
    """Return why a figure belongs to the data files; empty if it does not, or if a question made it up."""
    words = quantities.visible(text)
    sentence = _sentence(words, figure)
    cards = {card.lower() for card in CARD.findall(sentence)}
    if figure.kind == "money":
        known = set(figure.values) & {row["usd_per_gpu_hour"] for row in _data("prices")["prices"]}
        if known if exercise else cards or PRICED.match(words[figure.end :]):
            return f"“{figure.words}” is a price: it comes from prices.json by a cell that shows it with its date"
        return ""
    if exercise:
        hit = any(_property(figure, gpu["values"]) for name, gpu in _data("gpus")["gpus"].items() if _is(name, cards))
    elif figure.kind in ("bandwidth", "speed"):
        hit = bool(HARDWARE.search(words))
    elif figure.kind == "power":
        hit = bool(cards)
    else:
        hit = figure.kind == "size" and _memory(figure, cards, sentence)
    if not hit:
        return ""
    return f"“{figure.words}” is a card's property: it comes from gpus.json by a cell that shows it with its date"


def _sentence(words: str, figure: Figure) -> str:
    """Return the sentence, or the part of one between semicolons, in which a figure stands."""
    return re.split(r"[.;!?]\s", words[: figure.start])[-1] + re.split(r"[.;!?]\s", words[figure.start :])[0]


def _is(name: str, cards: set[str]) -> bool:
    return name.split("-")[0] in cards


def _property(figure: Figure, gpu: dict[str, Any]) -> bool:
    """Return whether a figure is this card's memory, bandwidth, speed or power."""
    if figure.kind == "power":
        return gpu["watts"] in figure.values
    if figure.kind == "size":
        sizes = (gpu["memory_bytes"], gpu["usable_bytes"])
        return any(math.isclose(size, one, rel_tol=0.003) for size in quantities.bytes_of(figure) for one in sizes)
    known = [gpu["bandwidth_bytes_per_s"]] if figure.kind == "bandwidth" else list(gpu["rates"].values())
    scales = (1e9, 1e12, 1e15)
    return figure.kind in ("bandwidth", "speed") and any(
        math.isclose(value * scale, one, rel_tol=0.03) for value in figure.values for scale in scales for one in known
    )


def _memory(figure: Figure, cards: set[str], sentence: str) -> bool:
    """Return whether a size is the memory of a card that its sentence names, or is said to be what the card has."""
    if any(_property(figure, gpu["values"]) for name, gpu in _data("gpus")["gpus"].items() if _is(name, cards)):
        return True
    has = r"\b(?:has|have|with|carries|offers|'s)\s+(?:\w+\s+)?"
    return bool(re.search(CARD.pattern + r"s?\s*(?:\w+\s+)?" + has + re.escape(figure.words), sentence))


def _kind(figure: Figure, text: str, sourced: bool, section: Section) -> str:
    """Return "sourced" or "own" for a figure in a text, or nothing."""
    if sourced or (figure.kind == "count" and _of_model(figure)):
        return "sourced"
    words = quantities.visible(text)
    if figure.values and set(figure.values) <= section.sourced:
        return "sourced"
    ours = figure.kind in ("time", "size") and LABS.search(_sentence(words, figure))
    return "own" if ours or ILLUSTRATED.search(words[: figure.start]) or _computed(figure, section) else ""


def _computed(figure: Figure, section: Section) -> bool:
    """Return whether the code of a section holds a figure: its numbers, or for a ratio those of its checks.

    The whole numbers of other code are too common to tell what a ratio is of; its fractions, such as 0.3, are not.
    """
    if figure.kind in ("factor", "percent", "rate"):
        as_shares = (({one, one / 100, 1 - one / 100} if figure.kind == "percent" else {one}) for one in figure.values)
        known = section.checked | {number for number in section.numbers if 0 < number < 1}
        held = [any(math.isclose(one, number) for one in share for number in known) for share in as_shares]
    elif figure.kind == "size":
        written = re.sub(r"i?B?$", "", figure.words).replace(" ", r"\s?")
        return set(quantities.bytes_of(figure)) <= section.numbers or bool(
            re.search(rf"\b{written}i?B?\b", section.code)
        )
    else:
        held = [any(_rounded(number, one) for number in section.numbers) for one in figure.values]
    return bool(held) and all(held)


def _rounded(exact: float, said: float) -> bool:
    """Return whether `said` is a number, or that number rounded to the hundreds, thousands or more that `said` shows."""
    zeros = len(f"{said:.0f}") - len(f"{said:.0f}".rstrip("0")) if said == int(said) else 0
    return exact == said or (zeros >= 2 and round(exact, -zeros) == said)


def _of_model(figure: Figure) -> bool:
    """Return whether models.json has a model of this many parameters, layers, heads or dimensions."""
    part = next((part for part in PARTS if re.search(rf"{part}s?$", figure.words)), None)
    if not part:
        return False
    known = [model["values"][key] for model in _data("models")["models"].values() for key in PARTS[part]]
    return all(any(_rounded(one, value) for one in known) for value in figure.values)


def _sourced(text: str, keys: set[str], root: Path) -> bool:
    """Return whether a text cites, links, or names a file or target that can be read."""
    cited = {key.strip() for found in CITED.findall(text) for key in found.split(",")}
    code = [name for role, name in CODE.findall(text) if not role]
    if cited & keys or LINKED.search(CODE.sub(lambda found: found[0] if found[1] else "", text)):
        return True
    return any(_readable(name, root) for name in code)


@functools.cache
def _readable(name: str, root: Path) -> bool:
    """Return whether inline code names a file of this repository or of the installed engine, or a target of `make`."""
    if name.startswith("make "):
        makefile = root / "Makefile"
        return makefile.is_file() and f"\n{name[5:]}:" in makefile.read_text(encoding="utf-8")
    if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+", name):
        return False
    places = [root]
    engine = importlib.util.find_spec("vllm") if name.startswith("vllm/") else None
    if engine and engine.origin:
        places.append(Path(engine.origin).parents[1])
    return any((place / name).is_file() for place in places)


@functools.cache
def _data(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


# Citations and dates.


def _entries(bibliography: BibliographyData, root: Path) -> list[Problem]:
    """Return the entries of the bibliography that lead nowhere."""
    lines = (root / BIBLIOGRAPHY).read_text(encoding="utf-8").splitlines() if bibliography.entries else []
    found = []
    for key, entry in bibliography.entries.items():
        if not entry.fields.get("url") and not entry.fields.get("doi"):
            line = next(
                number for number, text in enumerate(lines, 1) if re.search(rf"\{{\s*{re.escape(key)}\s*,", text)
            )
            found.append(Problem(BIBLIOGRAPHY, line, f"{key} has neither url nor doi"))
    return found


def _dated(page: Page) -> list[Problem]:
    """Return the first cell that shows prices or rests on a card's properties, where the page shows no date read."""
    cells = [block for block in page.blocks if block.directive == "code-cell"]
    using = next((block for block in cells if DATED.search(block.body)), None)
    shown = any(block.directive == "chapter-header" for block in page.blocks)
    if not using or shown or any(re.search(r"[\"']read[\"']", block.body) for block in cells):
        return []
    line = using.body_line + using.body[: DATED.search(using.body).start()].count("\n")  # type: ignore[union-attr]
    return [Problem(page.path, line, "shows figures of the data files and not the day they were read: print `read`")]
