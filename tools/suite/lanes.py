"""Run jobs side by side, one a core, so that no lane idles while there is work that may start."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llminfra.models import cache_folder
from llminfra.notebook import record
from llminfra.notebook.chapter import ROOT
from suite.jobs import Job, durations

LANES = max(1, min(4, len(os.sched_getaffinity(0))))
PR_SET_PDEATHSIG = 1
PATIENCE_S = 30
"""How long a job that was interrupted may take to stop what it started."""
CHILD_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Result:
    """How a job ended: its exit status, when it ran (seconds since the epoch), what it wrote, what its tests reported."""

    job: Job
    status: int
    began: float
    ended: float
    lane: int
    log: str
    report: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    """The project's files that a recorded job opened or listed."""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.ended - self.began


class MemoryLock:
    """Held by the one job on this machine that may have an engine: two of them, and their times, would be in each other's way."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def take(self) -> bool:
        """Return whether the lock is ours now; it does not wait."""
        if self._file is not None:
            return False
        path = cache_folder() / "engine.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let the next one take it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def run(jobs: list[Job], done: Callable[[Result], None], lanes: int = LANES, to_the_end: bool = True) -> list[Result]:
    """Run jobs in lanes, the longest first, and hand each result to `done` as it ends; return them all.

    A job that needs the lock is passed over while another holds it, so that what needs none fills the lane. All that runs
    is stopped, with what it started, when this is interrupted, and when a job fails unless it is to go on `to_the_end`.
    """
    took = durations()
    waiting = sorted(jobs, key=lambda job: -took.get(job.name, 3600.0))
    free, results = list(range(lanes)), []
    running: list[_Running] = []
    lock = MemoryLock()
    try:
        while waiting or running:
            while free and waiting:
                job = _next(waiting, lock)
                if job is None:
                    break
                waiting.remove(job)
                running.append(_Running(job, free.pop(0)))
            time.sleep(0.1)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free = sorted([*free, one.lane])
                if one.job.engine:
                    lock.release()
                results.append(one.result())
                done(results[-1])
                if results[-1].status and not to_the_end:
                    return results
    finally:
        for one in running:
            one.stop()
        lock.release()
    return results


def _next(waiting: list[Job], lock: MemoryLock) -> Job | None:
    """Return the longest job that may start now, one with an engine before others: these can run beside each other."""
    engine = next((job for job in waiting if job.engine), None)
    if engine and lock.take():
        return engine
    return next((job for job in waiting if not job.engine), None)


class _Running:
    """A job's process, in a group of its own that dies with this process."""

    def __init__(self, job: Job, lane: int):
        self.job, self.lane, self.began = job, lane, time.time()
        self.folder = tempfile.TemporaryDirectory(prefix="suite-")
        self.log = Path(self.folder.name) / "log"
        env = {**CHILD_ENV, **job.env, "LLMINFRA_JOB_REPORT": str(self._report)}
        if job.recorded:
            env = record.environment(self._used, ROOT, env)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                job.command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    @property
    def _report(self) -> Path:
        return Path(self.folder.name) / "report.json"

    @property
    def _used(self) -> Path:
        return Path(self.folder.name) / "used"

    def result(self) -> Result:
        """Return how it ended, and remove its folder."""
        report = json.loads(self._report.read_text(encoding="utf-8")) if self._report.is_file() else {}
        log = self.log.read_text(encoding="utf-8", errors="replace")
        _, used = record.read(self._used)
        self.folder.cleanup()
        return Result(self.job, self.process.returncode, self.began, time.time(), self.lane, log, report, used)

    def stop(self) -> None:
        """Interrupt it as Ctrl-C would, so that it stops what it started; kill it if that takes too long."""
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
                break
        self.folder.cleanup()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
