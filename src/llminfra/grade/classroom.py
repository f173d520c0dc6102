"""Grade a folder of submissions: several at once, each once, with the failure rate of each requirement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..errors import ExerciseError, first_line
from ..exercise import Exercise
from . import run

KEPT = ".grades"
"""The folder, beside the submissions, that has a report for each: a run that was interrupted goes on from there."""


def grade_all(
    exercise: Exercise, folder: Path, seed: int, jobs: int, done: Callable[[str, dict[str, Any]], None]
) -> dict[str, dict[str, Any]]:
    """Return the report of each subfolder by its name; `done` is told of each as it is ready.

    A submission that was graded by this grader with this seed, and has not changed since, is not graded again. One that could not be
    graded has an `error` in place of a report. Raises ExerciseError if there is no submission.
    """
    if not folder.is_dir():
        raise ExerciseError(f"{folder}: no such folder")
    each = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not each:
        raise ExerciseError(f"{folder}: has no folder of a submission in it")
    (folder / KEPT).mkdir(exist_ok=True)
    grader = run.digest(exercise.folder / "grader")
    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_graded, exercise, path, seed, grader): path.name for path in each}
        for future in as_completed(waiting):
            name = waiting[future]
            found[name] = future.result()
            done(name, found[name])
    return {path.name: found[path.name] for path in each}


def _graded(exercise: Exercise, submission: Path, seed: int, grader: str) -> dict[str, Any]:
    key = f"{grader} {run.digest(submission)} {seed} {exercise.name}"
    file = submission.parent / KEPT / f"{submission.name}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["key"] == key:
            report: dict[str, Any] = kept["report"]
            return report
    except (OSError, ValueError, KeyError):
        pass
    try:
        report = run.grade(exercise, submission, seed).as_json()
    except ExerciseError as error:
        return {"error": first_line(error)}
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"key": key, "report": report}, indent=1), encoding="utf-8")
    part.replace(file)
    return report


def failure_rates(exercise: Exercise, reports: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return for each requirement how many submissions failed it, and of how many it is known."""
    graded = [report for report in reports if "error" not in report]
    return {
        one.id: (
            sum(one.id in report["failed"] for report in graded),
            sum(one.id in report["failed"] or one.id in report["passed"] for report in graded),
        )
        for one in exercise.requirements
    }
