"""Grade one submission: its exercise's tests in a process without a network, and a report of what they found."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ExerciseError
from ..exercise import ROOT, Exercise, Requirement
from ..process import Child
from . import confine
from .plugin import TASK, Outcome

COLLECTED_WITH_ERRORS = 2
"""pytest's exit status if a file of tests can't be imported."""


@dataclass(frozen=True)
class Verdict:
    """What became of one requirement: passed, failed or not run, and the case that says most about it."""

    requirement: Requirement
    status: str
    case: Outcome | None


@dataclass(frozen=True)
class Report:
    """What a submission was found to do."""

    exercise: str
    folder: str
    seed: int
    verdicts: tuple[Verdict, ...]
    tests: int
    ran: int
    seconds: float
    notes: tuple[str, ...]
    """Limits that this system does not allow, and faults of the grader."""

    @property
    def passed(self) -> list[str]:
        """Ids of the requirements that are met."""
        return [one.requirement.id for one in self.verdicts if one.status == "passed"]

    @property
    def failed(self) -> list[str]:
        """Ids of the requirements that are not met."""
        return [one.requirement.id for one in self.verdicts if one.status == "failed"]

    @property
    def not_run(self) -> list[str]:
        """Ids of the requirements of which nothing is known."""
        return [one.requirement.id for one in self.verdicts if one.status == "not run"]

    @property
    def complete(self) -> bool:
        """Whether every requirement that could be judged here is met; one that needs a GPU may be missing."""
        missing = [one.requirement for one in self.verdicts if one.status != "passed"]
        return all(one.gpu for one in missing) and not self.failed

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object for instructors' programs."""
        return {
            "exercise": self.exercise,
            "folder": self.folder,
            "seed": self.seed,
            "passed": self.passed,
            "failed": self.failed,
            "not_run": self.not_run,
            "tests": self.tests,
            "tests_run": self.ran,
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
            "requirements": [
                {"id": one.requirement.id, "status": one.status, **({"case": asdict(one.case)} if one.case else {})}
                for one in self.verdicts
            ],
        }


def new_seed() -> int:
    """Return a seed that nobody could know."""
    return random.SystemRandom().randrange(10**6)


def grade(exercise: Exercise, folder: Path, seed: int, only: Sequence[str] = (), first_failure: bool = False) -> Report:
    """Return what the exercise's grader finds in a folder, with hidden inputs drawn from this seed.

    `only` names the requirements to judge, all if empty. With `first_failure` it ends at the first that is not met. The grader runs
    in a process with no network but 127.0.0.1, where the system allows. Raises ExerciseError for a folder that does not exist or is
    empty, and for requirements that the exercise does not have.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise ExerciseError(f"{folder}: no folder with files in it")
    unknown = set(only) - {one.id for one in exercise.requirements}
    if unknown:
        raise ExerciseError(f"{exercise.name} has no requirement {', '.join(sorted(unknown))}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llg-") as temporary:
        work = Path(temporary)
        results, log = work / "results", work / "log"
        task = {"folder": str(folder.resolve()), "seed": seed, "exercise": str(exercise.folder.resolve())}
        task |= {"results": str(results), "only": list(only)}
        (work / "task.json").write_text(json.dumps(task))
        (work / "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(work / "pytest.ini"), "--rootdir", str(work)]
        command += ["-p", "llminfra.grade.plugin", "-p", "no:cacheprovider", "--basetemp", str(work / "t")]
        grader = str(exercise.folder / "grader")
        command += ["--confcutdir", grader, "--import-mode=importlib", *(["-x"] if first_failure else []), grader]
        spec = {"command": command, "folder": str(ROOT), "writable": None, "processes": None, "network": True}
        spec |= {"stdin": None, "stdout": None, "file_bytes": None, "told": str(work / "told")}
        (work / "spec.json").write_text(json.dumps(spec))
        env = {**os.environ, TASK: str(work / "task.json"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(exercise.folder / "grader"), *filter(None, [env.get("PYTHONPATH")])])
        child = Child([sys.executable, "-S", confine.__file__, str(work / "spec.json")], temporary, log, env)
        notes = []
        try:
            deadline = time.monotonic() + exercise.limit_s
            while child.running() and time.monotonic() < deadline:
                time.sleep(0.02)
            if child.running():
                notes.append(f"stopped after {exercise.limit_s:g} s, the limit of the exercise")
        finally:
            child.kill()
        written = results.read_text(encoding="utf-8") if results.exists() else ""
        lines = [json.loads(line) for line in written.split("\n") if line]  # what is shown may hold U+2028
        broken = child.status == COLLECTED_WITH_ERRORS
        if broken or not lines:
            raise ExerciseError(f"the grader of {exercise.name} did not start:\n{child.log()[-2000:]}")
        notes += json.loads((work / "told").read_text() or "[]")
    return _report(exercise, folder, seed, lines, notes, time.monotonic() - began)


def _report(
    exercise: Exercise, folder: Path, seed: int, lines: list[dict[str, Any]], notes: list[str], seconds: float
) -> Report:
    planned = next(line["planned"] for line in lines if "planned" in line)
    outcomes = [Outcome(**line) for line in lines if "test" in line]
    notes += [note for line in lines for note in line.get("unlimited", [])]
    notes += [f"the grader broke in {one.test}: {one.seen}" for one in outcomes if one.fault]
    verdicts = []
    for one in exercise.requirements:
        found = [outcome for outcome in outcomes if outcome.requirement == one.id]
        tests = [name for id, name in planned if id == one.id]
        failed = [outcome for outcome in found if outcome.status == "failed"]
        if failed:
            verdicts.append(Verdict(one, "failed", failed[0]))
        elif tests and len(found) == len(tests) and all(outcome.status == "passed" for outcome in found):
            verdicts.append(Verdict(one, "passed", None))
        else:
            skipped = [outcome for outcome in found if outcome.status == "not run"]
            verdicts.append(Verdict(one, "not run", skipped[0] if skipped else None))
    ran = sum(outcome.status != "not run" for outcome in outcomes)
    return Report(exercise.name, str(folder), seed, tuple(verdicts), len(planned), ran, seconds, tuple(notes))


def digest(folder: Path) -> str:
    """Return the digest of a folder's files: their names and what is in them."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()
