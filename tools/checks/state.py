"""What pages say of the course itself: which chapters are written, and how many chapters, exercises, weeks and widgets there are.

The files are the truth: a chapter is written if it is a notebook in `book/`. The course map has a row for each chapter, a list of
the exercises and a table of the weeks; other pages count these in digits or words, and name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checks import Problem, line_of, quantities, source
from checks.source import ROOT
from llminfra.notebook.chapter import chapters

MAP, INDEX, README, CONTRIBUTING = "book/course-map.md", "book/index.md", "README.md", "CONTRIBUTING.md"
NUMBER = rf"(\d+|{'|'.join(quantities.WORDS)})"
ROW = re.compile(r"^\| (\d+) \| (?:\[([^\]]+)\]\(([^)]+)\)|([^|]+?)) \|[^|]*\| (\w+) \|$", re.M)
TITLE = re.compile(r"^# (?:\d+\. )?(.+)$", re.M)


@dataclass(frozen=True)
class Course:
    """The written chapters, title by file name; and how many chapters, exercises, weeks and prerequisites there are."""

    written: dict[str, str]
    chapters: int
    exercises: int
    weeks: int
    prerequisites: int


def problems(root: Path = ROOT) -> list[Problem]:
    """Return each statement of a page about the course that its files contradict."""
    course = of_files(root)
    found = [*_map(course, root), *_named(course, root), *_widgets(root)]
    for path in source.sources(root):
        found += _counts(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"), course)
    return sorted(found)


def of_files(root: Path = ROOT) -> Course:
    """Return what the course is, by its files."""
    plan = (root / MAP).read_text(encoding="utf-8")
    asked = (root / "book/prerequisites.md").read_text(encoding="utf-8")
    return Course(
        {path.name: _title(path.read_text(encoding="utf-8")) for path in chapters(root)},
        len(ROW.findall(plan)),
        len(re.findall(r"^\d+\. ", _section(plan, "Exercises"), re.M)),
        len(re.findall(r"^\| \d+ \|", _section(plan, r"\w+ weeks"), re.M)),
        asked.count('type="checkbox"'),
    )


def _title(text: str) -> str:
    found = TITLE.search(text)
    return found[1].strip() if found else ""


def _section(text: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1] if found else ""


def _map(course: Course, root: Path) -> Iterator[Problem]:
    """Yield each row of the course map that calls a chapter other than its file says."""
    text = (root / MAP).read_text(encoding="utf-8")
    rows = {int(row[1]): row for row in ROW.finditer(text)}
    for name in course.written:
        if int(name[:2]) not in rows:
            yield Problem(MAP, line_of(text, "## Chapters"), f"has no row for {name}")
    for number, row in rows.items():
        line = text[: row.start()].count("\n") + 1
        name = next((name for name in course.written if int(name[:2]) == number), "")
        if name and (row[2], row[3], row[5]) != (course.written[name], name, "written"):
            yield Problem(
                MAP, line, f"chapter {number} is written: say `[{course.written[name]}]({name})` and `written`"
            )
        if not name and (row[3] or row[5] != "planned"):
            yield Problem(MAP, line, f"chapter {number} is no notebook in book/: call it planned, without a link")
    for brief in sorted((root / "exercises").glob("*/README.md")):
        if f"(../exercises/{brief.parent.name}/README.md)" not in _section(text, "Exercises"):
            yield Problem(MAP, line_of(text, "## Exercises"), f"does not link exercises/{brief.parent.name}")


def _named(course: Course, root: Path) -> Iterator[Problem]:
    """Yield each written chapter that a page which names them all leaves out."""
    contents, index = (
        (root / name).read_text(encoding="utf-8") if (root / name).is_file() else "" for name in ("_toc.yml", INDEX)
    )
    readme = (root / README).read_text(encoding="utf-8")
    for name, title in course.written.items():
        if f"({name})" not in index:
            yield Problem(INDEX, line_of(index, "complete"), f"names the chapters that are written, and not {name}")
        if f"*{title}*" not in readme:
            yield Problem(
                README, line_of(readme, "complete"), f"names the chapters that are written, and not *{title}*"
            )
        if name.removesuffix(".md") not in contents:
            yield Problem("_toc.yml", 0, f"lacks book/{name.removesuffix('.md')}")


def _widgets(root: Path) -> Iterator[Problem]:
    """Yield that the list of widgets in CONTRIBUTING.md is not that of the modules."""
    text = (root / CONTRIBUTING).read_text(encoding="utf-8")
    listed = re.search(r"The kinds are ([^.]+)\.", text)
    there = {path.stem.removeprefix("widget_") for path in (root / "src").rglob("widget_*.py")}
    if listed and set(re.findall(r"`(\w+)`", listed[1])) != there:
        line = text[: listed.start()].count("\n") + 1
        yield Problem(CONTRIBUTING, line, f"the kinds of widgets are {', '.join(sorted(there))}")


def _counts(path: str, text: str, course: Course) -> Iterator[Problem]:
    """Yield each number in a page's statements about the course that its files contradict."""
    done, planned = len(course.written), course.chapters - len(course.written)
    statements: list[tuple[str, tuple[int, ...]]] = [
        (rf"{NUMBER} of (?:the )?{NUMBER} (?:chapters )?are (?:complete|written)", (done, course.chapters)),
        (r"[Cc]hapters (\d+) to (\d+) are (?:complete|written)", (1, done)),
        (rf"[Tt]he other {NUMBER}\b[^.]* planned", (planned,)),
        (rf"checklist of {NUMBER} items|{NUMBER} things to know", (course.prerequisites,)),
    ]
    if path in (MAP, INDEX, README):
        statements += [
            (rf"{NUMBER} chapters", (course.chapters,)),
            (rf"{NUMBER} exercises", (course.exercises,)),
            (rf"{NUMBER} weeks", (course.weeks,)),
        ]
    for pattern, true in statements:
        for found in re.finditer(rf"\b{pattern}\b", text, re.I):
            said = tuple(int(quantities.value(number)) for number in found.groups() if number)
            if said != true:
                line = text[: found.start()].count("\n") + 1
                yield Problem(
                    path, line, f"“{found[0][:60]}”: by the course's files it is {' of '.join(map(str, true))}"
                )
