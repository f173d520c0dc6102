"""The pytest plugin of graders: what their tests are given, and what they report.

A grader's test is called after its requirement, `test_r2_retries_when_refused`, and takes the fixtures `submission` (a fresh copy
of the learner's folder, see `submission.Submission`) and `draw` (a `random.Random`, seeded by the run and by the test, from which all its
inputs come; `draw_for_all` is seeded by the run alone). It says what it found by `judge`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import exercise
from .submission import Raised, Stopped, Submission

TASK = "LLMINFRA_GRADE"
"""Names the file that says what is graded: `folder`, `seed`, `exercise`, `results`, and the ids in `only`, if not all."""

SHOWN = 400


class Unmet(AssertionError):
    """A requirement that a submission does not meet, in this case."""

    def __init__(self, given: str, seen: str, expected: str):
        super().__init__(f"given {given}: expected {expected}, seen {seen}")
        self.given, self.seen, self.expected = given, seen, expected


@dataclass(frozen=True)
class Outcome:
    """What one test of a grader found: passed, failed, or not run (skipped, with the reason in `seen`)."""

    requirement: str
    test: str
    status: str
    given: str = ""
    seen: str = ""
    expected: str = ""
    seconds: float = 0.0
    fault: bool = False
    """The grader itself broke, and the submission is not to blame."""


def judge(met: bool, *, given: Any, seen: Any, expected: Any) -> None:
    """Fail the requirement unless it is met, with what was given to the submission, what was seen, what was expected."""
    if not met:
        raise Unmet(_short(given), _short(seen), _short(expected))


def judge_equal(seen: Any, expected: Any, *, given: Any) -> None:
    """Fail the requirement unless what was seen equals what was expected."""
    judge(seen == expected, given=given, seen=seen, expected=expected)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"


def _task() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(os.environ[TASK]).read_text(encoding="utf-8"))
    return found


class Grader:
    """The plugin itself: it is registered only where a task is named."""

    def __init__(self, task: dict[str, Any]):
        self.task = task
        self.known = [one.id for one in exercise.read(Path(task["exercise"])).requirements]
        self.unlimited: set[str] = set()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave only the wanted requirements, and write down how many tests there are before the first runs."""
        only = self.task.get("only") or self.known
        wanted = [item for item in items if self._requirement(item) in only]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        wanted.sort(key=lambda item: self.known.index(self._requirement(item)))
        items[:] = wanted
        self._write({"planned": [[self._requirement(item), item.name] for item in items]})

    def _requirement(self, item: pytest.Item) -> str:
        return exercise.of_test(item.name.partition("[")[0], self.known)

    @pytest.fixture
    def submission(self, tmp_path: Path) -> Iterator[Submission]:
        """A copy of the learner's folder, fresh for each test."""
        shutil.copytree(
            self.task["folder"], tmp_path / "work", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        (tmp_path / "scratch").mkdir()
        submission = Submission(tmp_path / "work", tmp_path / "scratch")
        yield submission
        self.unlimited |= submission.unlimited

    @pytest.fixture
    def draw_for_all(self) -> random.Random:
        """What inputs are drawn from that several tests share: the same in each of them."""
        return random.Random(f"{self.task['seed']}")

    @pytest.fixture
    def draw(self, request: pytest.FixtureRequest) -> random.Random:
        """What the hidden inputs of this test are drawn from."""
        return random.Random(f"{self.task['seed']} {request.node.name}")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Write down what a test found as soon as it has: the next may take all that is left of the time."""
        began = time.monotonic()
        outcome = yield
        raised = outcome.excinfo[1] if outcome.excinfo else None  # type: ignore[attr-defined]
        self._write(asdict(self._judged(item, raised, time.monotonic() - began)))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """A fixture that could not be made is the grader's fault."""
        outcome = yield
        if outcome.excinfo:  # type: ignore[attr-defined]
            self._write(asdict(self._judged(item, outcome.excinfo[1], 0.0)))  # type: ignore[attr-defined]

    def _judged(self, item: pytest.Item, raised: BaseException | None, seconds: float) -> Outcome:
        found: dict[str, Any] = {
            "requirement": self._requirement(item),
            "test": item.name,
            "seconds": round(seconds, 3),
        }
        match raised:
            case None:
                return Outcome(status="passed", **found)
            case Unmet():
                return Outcome(status="failed", given=raised.given, seen=raised.seen, expected=raised.expected, **found)
            case Raised() | Stopped():
                return Outcome(status="failed", seen=_short(str(raised)), expected="an answer", **found)
            case TypeError() | ValueError() | LookupError() | AttributeError():  # what it returned can't be read
                seen = _short(f"a result of another form ({type(raised).__name__}: {raised})")
                return Outcome(status="failed", seen=seen, expected="the form that the brief states", **found)
            case pytest.skip.Exception():
                return Outcome(status="not run", seen=str(raised), **found)
            case _:
                seen = _short(f"{type(raised).__name__}: {raised}")
                return Outcome(status="failed", seen=seen, fault=True, **found)

    def pytest_sessionfinish(self) -> None:
        """Say which limits this system did not allow."""
        self._write({"unlimited": sorted(self.unlimited)})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self.task["results"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Register the grader."""
    if TASK in os.environ:
        config.pluginmanager.register(Grader(_task()), "llminfra-grader")
