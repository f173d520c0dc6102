"""What an exercise asks for, as its `exercise.yml` states it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from .errors import ExerciseError, nearest

ROOT = Path(__file__).parents[2]
HINTS = 3


@dataclass(frozen=True)
class Requirement:
    """One thing that a submission must do: its id (R1, R2 …), what it says, hints from vague to plain, where it is taught."""

    id: str
    says: str
    hints: tuple[str, ...]
    section: str
    """The page and anchor that teach it: `02-vllm-deployment.md#chunked-prefill`."""
    gpu: bool = False
    """It needs a GPU, and counts only where there is one."""


@dataclass(frozen=True)
class Exercise:
    """An exercise: its folder, what it is called, hours of work, objectives that it practises, requirements, time limit in seconds."""

    folder: Path
    title: str
    hours: str
    objectives: tuple[str, ...]
    requirements: tuple[Requirement, ...]
    limit_s: float

    @property
    def number(self) -> str:
        """Two digits."""
        return self.folder.name[:2]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def exercises(root: Path = ROOT) -> list[Exercise]:
    """Return all exercises of the course in their order. Raises ExerciseError."""
    return [read(path.parent) for path in sorted((root / "exercises").glob("*/exercise.yml"))]


def find(number: str, root: Path = ROOT) -> Exercise:
    """Return the exercise with this number or name. Raises ExerciseError if there is none."""
    every = exercises(root)
    for exercise in every:
        if number in (exercise.name, exercise.number, exercise.number.lstrip("0")):
            return exercise
    known = [exercise.name for exercise in every]
    raise ExerciseError(f"no exercise {number!r}; there are {', '.join(known) or 'none'}{nearest(number, known)}")


def read(folder: Path) -> Exercise:
    """Return the exercise in a folder. Raises ExerciseError that names the file and what is wrong in it."""
    file = folder / "exercise.yml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        requirements = tuple(
            Requirement(one["id"], one["says"], tuple(one["hints"]), one["section"], gpu=bool(one.get("gpu", False)))
            for one in found["requirements"]
        )
        exercise = Exercise(
            folder,
            found["title"],
            str(found["hours"]),
            tuple(found["objectives"]),
            requirements,
            float(found["limit_s"]),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ExerciseError(f"{file}: {type(error).__name__}: {error}") from None
    wrong = [one.id for one in requirements if len(one.hints) != HINTS]
    if wrong:
        raise ExerciseError(f"{file}: {', '.join(wrong)} must have {HINTS} hints, from vague to plain")
    ids = [one.id for one in requirements]
    if ids != [f"R{number}" for number in range(1, len(ids) + 1)]:
        raise ExerciseError(f"{file}: the requirements must be R1, R2 … in order, and are {', '.join(ids)}")
    return exercise


def of_test(name: str, known: Iterable[str]) -> str:
    """Return the id of the requirement that a test function judges: `test_r2_retries` is R2's. Raises ExerciseError."""
    begin = name.removeprefix("test_").partition("_")[0].upper()
    if begin not in known:
        raise ExerciseError(f"the test {name} names no requirement: it must begin with test_r1_, test_r2_ …")
    return begin
