"""Where each objective is taught, practised and asked: gathered from the files that do it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .chapter import ROOT, chapters

FILE = "book/objectives.yml"


@dataclass
class Objective:
    """What a learner can do: `taught` in chapters and `practised` in exercises that exist, by number; `planned` in others.

    `asked` counts the questions of the quiz.
    """

    id: str
    can: str
    taught: list[int] = field(default_factory=list)
    practised: list[int] = field(default_factory=list)
    asked: int = 0
    planned_chapters: list[int] = field(default_factory=list)
    planned_exercises: list[int | str] = field(default_factory=list)


def gathered(root: Path = ROOT) -> tuple[list[Objective], list[str]]:
    """Return the objectives in the order of their file, and what contradicts: an unknown name, or one that nothing serves."""
    known = {
        row["id"]: Objective(
            row["id"],
            row["can"],
            planned_chapters=row["planned"]["chapters"],
            planned_exercises=row["planned"]["exercises"],
        )
        for row in yaml.safe_load((root / FILE).read_text(encoding="utf-8"))
    }
    problems: list[str] = []

    def named(where: str, names: Iterable[str]) -> list[Objective]:
        names = list(names)
        problems.extend(
            f"{where} names the objective {name}, which {FILE} lacks" for name in names if name not in known
        )
        return [known[name] for name in names if name in known]

    written, made = set(), set()
    for path in chapters(root):
        course = yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])["course"]
        written.add(course["number"])
        for objective in named(path.name, course["objectives"]):
            objective.taught.append(course["number"])
    for path in sorted((root / "exercises").glob("*/exercise.yml")):
        number = int(path.parent.name[:2])
        made.add(number)
        for objective in named(f"exercises/{path.parent.name}", _read(path)["objectives"]):
            objective.practised.append(number)
    questions = root / "quiz" / "questions.yml"
    for question in _read(questions) if questions.is_file() else []:
        for objective in named(f"question {question['id']}", [question["objective"]]):
            objective.asked += 1
    for objective in known.values():
        objective.planned_chapters = [one for one in objective.planned_chapters if one not in written]
        objective.planned_exercises = [one for one in objective.planned_exercises if one not in made]
        if not objective.taught and not objective.planned_chapters:
            problems.append(f"{objective.id} is taught in no chapter, written or planned")
        if not objective.practised and not objective.planned_exercises:
            problems.append(f"{objective.id} is practised in no exercise, written or planned")
    return list(known.values()), problems


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
