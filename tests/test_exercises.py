"""Each exercise's grader: it fails what must fail, passes what must pass, and kills what is changed in a solution."""

import time

import pytest
from checks import exercises
from checks.source import ROOT

from llminfra.exercise import exercises as every
from llminfra.grade import run
from llminfra.notebook import ledger, stamp

pytestmark = pytest.mark.heavy

MUTANTS = 60
JUDGE = "tools/checks/exercises.py"


def inputs(exercise):
    """What the proof of an exercise depends on: its files, the machinery, and what it uses of the package."""
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src/llminfra").rglob("*.py")}
    used = sorted(
        package - {name for name in package if "/web/" in name or "/trust/" in name or name.endswith("cli.py")}
    )
    meaning = "".join(stamp.meaning(ROOT / name) for name in (*used, JUDGE))
    return {**ledger.surroundings(), "exercise": run.digest(exercise.folder), "package": stamp.digest(meaning)}


@pytest.mark.parametrize("exercise", every(), ids=lambda exercise: exercise.name)
@pytest.mark.parametrize(
    "count", [MUTANTS, pytest.param(None, marks=pytest.mark.slow, id="all")]
)  # slow: hundreds of gradings
def test_its_grader_can_be_trusted(exercise, count, hold, covered, record_property):
    known = inputs(exercise)
    entry = ledger.standing("exercise", exercise.name, known) if count else None
    if entry:
        record_property("stands", ("exercise", entry.when))
        return
    began = time.monotonic()
    proof = exercises.proof(exercise, count)
    hold(proof.problems)
    covered("exercises", f"{exercise.name}: {proof.killed} of {proof.mutants} mutants killed")
    record_property("executed", "exercise")
    if count:
        ledger.enter("exercise", exercise.name, known, "make test", time.monotonic() - began)
