"""A learner's code, as a grader meets it: called, run or started in processes of its own, never imported by the grader."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..process import Child
from . import caller, confine

OUTPUT_BYTES = 1_000_000
PROCESSES = 64
TASKS = 1024
"""Processes and threads, at most, between two looks at them."""

MEMORY_BYTES = 4 * 2**30
FILE_BYTES = 2**30
WATCH_S = 0.05

PASSED_ON = ("PATH", "LANG", "OMP_NUM_THREADS", "XDG_CACHE_HOME", "LLMINFRA_CACHE", "LLMINFRA_EXERCISE_HOST")


class Stopped(Exception):
    """The learner's code was stopped: it ran too long, wrote or forked too much, or used too much memory."""


class Raised(Exception):
    """The learner's function raised: `kind` is the name of the exception, the message its text, `trace` where it was."""

    def __init__(self, kind: str, message: str, trace: str):
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message
        self.trace = trace


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, what it wrote to standard output and what to standard error, its seconds."""

    status: int
    out: str
    err: str
    seconds: float


class Running:
    """A command that runs on: a server, a launcher."""

    def __init__(self, child: Child, out: Path, told: Path):
        self.child = child
        self._out = out
        self._told = told
        self.stopped = ""
        """Why the grader stopped it; empty if it did not."""

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return _tail(self._out)

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return _tail(self.child.log_path)

    def running(self) -> bool:
        """Return whether it is still alive."""
        return self.child.running()

    def terminate(self) -> None:
        """Send SIGTERM to the command, as systemd and Kubernetes do."""
        self.child.send(signal.SIGTERM)

    def wait(self, limit_s: float) -> int:
        """Return its exit status once it has ended. Raises Stopped if that takes longer than `limit_s`, or if it was stopped."""
        deadline = time.monotonic() + limit_s
        while self.child.running() and not self.stopped and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.stopped:
            raise Stopped(self.stopped)
        if self.child.running():
            raise Stopped(f"it had not ended after {limit_s:g} s")
        return self.child.wait()

    def unlimited(self) -> list[str]:
        """Return which limits this system does not allow."""
        return json.loads(self._told.read_text() or "[]") if self._told.exists() else []


class Submission:
    """A copy of a learner's folder, in which his code may write, and nowhere else."""

    def __init__(self, folder: Path, scratch: Path):
        self.folder = folder
        self._scratch = scratch
        self._number = itertools.count()
        self.unlimited: set[str] = set()
        """Limits that this system does not allow, as far as something ran."""

    def call(self, name: str, *args: Any, limit_s: float = 20, **kwargs: Any) -> Any:
        """Return what the learner's function returns: `module:function`, with arguments and result that JSON can hold.

        Each call has a process of its own. Raises Raised if the function does, and Stopped at a limit.
        """
        with self.process() as call:
            return call(name, *args, limit_s=limit_s, **kwargs)

    @contextlib.contextmanager
    def process(self) -> Iterator[Callable[..., Any]]:
        """Give a function that is `call`, except that all its calls share one process, which ends with the block."""
        requests, results = self._file("requests"), self._file("results", inside=True)
        requests.mkdir()
        results.mkdir()
        number = itertools.count()
        with self.start([sys.executable, caller.__file__, str(requests), str(results)]) as running:

            def call(name: str, *args: Any, limit_s: float = 20, **kwargs: Any) -> Any:
                file = f"{next(number)}.json"
                part = requests / f"{file}.part"
                part.write_text(json.dumps({"name": name, "args": args, "kwargs": kwargs}), encoding="utf-8")
                part.replace(requests / file)
                answer = _awaited(results / file, running, name, limit_s)
                if "value" in answer:
                    return answer["value"]
                raise Raised(answer["kind"], answer["message"], answer["trace"])

            yield call

    def run(
        self, command: Sequence[str], *, stdin: str = "", env: dict[str, str] | None = None, limit_s: float = 20
    ) -> Ended:
        """Run a command in the folder and return how it ended. `python` is this interpreter. Raises Stopped."""
        began = time.monotonic()
        with self.start(command, stdin=stdin, env=env) as running:
            status = running.wait(limit_s)
            return Ended(status, running.out, running.err, time.monotonic() - began)

    @contextlib.contextmanager
    def start(self, command: Sequence[str], *, stdin: str = "", env: dict[str, str] | None = None) -> Iterator[Running]:
        """Start a command in the folder; it and all that it started are gone when the block ends."""
        words = [sys.executable if word == "python" else word for word in command]
        given, out, told = self._file("stdin"), self._file("out"), self._file("told")
        given.write_text(stdin)
        out.touch()
        with tempfile.TemporaryDirectory(prefix="llg-") as temporary:
            spec = self._file("spec.json")
            limits = {
                "writable": [str(self.folder), temporary],
                "processes": TASKS,
                "network": False,  # the grader itself has no other network: see `run`
                "file_bytes": FILE_BYTES,
            }
            files = {"stdin": str(given), "stdout": str(out), "told": str(told), "folder": str(self.folder)}
            spec.write_text(json.dumps({"command": words, **files, **limits}))
            variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            variables.update(
                HOME=temporary, PYTHONPATH=str(self.folder), PYTHONDONTWRITEBYTECODE="1", HF_HUB_OFFLINE="1"
            )
            variables.setdefault("OMP_NUM_THREADS", "1")
            child = Child(
                [sys.executable, "-S", confine.__file__, str(spec)],
                temporary,
                self._file("err"),
                {**variables, **(env or {})},
            )
            running = Running(child, out, told)
            watch = threading.Thread(target=_watch, args=(running, out), daemon=True)
            watch.start()
            try:
                yield running
            finally:
                child.kill()
                watch.join()
                self.unlimited.update(running.unlimited())

    def _file(self, name: str, inside: bool = False) -> Path:
        folder = self.folder / ".grade" if inside else self._scratch
        folder.mkdir(exist_ok=True)
        return folder / f"{next(self._number)}-{name}"


def _awaited(result: Path, running: Running, name: str, limit_s: float) -> dict[str, Any]:
    """Return what a call wrote, once it has. Raises Stopped, and Raised if the process ended without it."""
    deadline = time.monotonic() + limit_s
    while True:
        alive = running.running()
        if result.exists():
            break
        if running.stopped:
            raise Stopped(running.stopped)
        if not alive:
            last = running.err.strip().splitlines()[-1:] or [f"exit status {running.child.status}"]
            raise Raised("NoResult", f"{name} returned nothing: {last[0]}", running.err)
        if time.monotonic() > deadline:
            raise Stopped(f"{name} had not ended after {limit_s:g} s")
        time.sleep(0.002)
    try:
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer if "value" in answer else {key: str(answer[key]) for key in ("kind", "message", "trace")}
    except (ValueError, KeyError, TypeError):
        raise Raised("NoResult", f"{name} returned nothing that JSON holds", running.err) from None


def _watch(running: Running, out: Path) -> None:
    """Stop what writes, forks or uses more memory than it may."""
    while running.child.running() and not running.stopped:
        running.stopped = _excess(running, out)
        time.sleep(WATCH_S)
    if running.stopped:
        running.child.send(signal.SIGKILL)  # its namespace ends with it, however fast it forks
        running.child.kill()


def _excess(running: Running, out: Path) -> str:
    written = out.stat().st_size + running.child.log_path.stat().st_size
    if written > OUTPUT_BYTES:
        return f"it printed more than {OUTPUT_BYTES / 1e6:g} MB"
    try:
        every = psutil.Process(running.child.guard.pid).children(recursive=True)
        if len(every) > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        used = 0
        for process in every:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        if used > MEMORY_BYTES:
            return f"it used more than {MEMORY_BYTES / 2**30:g} GiB of memory"
    except psutil.Error:
        pass
    return ""


def _tail(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - OUTPUT_BYTES))
        return file.read().decode(errors="replace")
