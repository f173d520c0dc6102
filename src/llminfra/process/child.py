"""Start a program under the guard, wait until it answers, and end it with everything it started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from . import guard


class Child:
    """A running program. However this process ends, the program and all that it started end with it (see `guard`).

    Parameters
    ----------
    command: the program and its arguments. folder: for its temporary files; the guard removes it if this process dies.
    log: the file for what it writes. env: its environment. inherited: file descriptors that it keeps open until the end.
    """

    def __init__(
        self, command: Sequence[str], folder: str, log: Path, env: Mapping[str, str], inherited: Sequence[int] = ()
    ):
        self.log_path = log
        with open(log, "wb") as written:
            self.guard = subprocess.Popen(
                [sys.executable, "-S", guard.__file__, str(os.getpid()), folder, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                env=env,
                start_new_session=True,
                pass_fds=inherited,
            )
        self.pid = 0
        """The process id of the program; 0 if it could not be started."""
        try:
            assert self.guard.stdout is not None
            self.pid = int(self.guard.stdout.readline() or 0)
        except BaseException:
            self.kill()
            raise

    def running(self) -> bool:
        """Return whether the program is alive."""
        return self.guard.poll() is None

    @property
    def status(self) -> int | None:
        """How the program ended, 128 + N after signal N; None while it runs."""
        return self.guard.returncode

    def log(self) -> str:
        """Return all that the program has written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def until(self, answers: Callable[[], bool], timeout_s: float, pause_s: float = 0.02) -> bool:
        """Wait until `answers` is true; return False if the program ends first. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self.running():
            if answers():
                return True
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(pause_s)
        return False

    def send(self, number: Signals) -> None:
        """Send a signal to the program, unless it has ended."""
        if self.pid and self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit status once the program has ended, 128 + N after signal N. Raises subprocess.TimeoutExpired."""
        return self.guard.wait(timeout_s)

    def stop(self, timeout_s: float, number: Signals = SIGTERM) -> None:
        """Ask the program to end by a signal; after `timeout_s` kill it and every process below it."""
        try:
            self.send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(timeout_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program and every process below it at once. Twice is no error."""
        assert self.guard.stdin is not None and self.guard.stdout is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # the guard has ended, or has been told before
            self.guard.stdin.write("\n")
            self.guard.stdin.close()
        self.guard.wait()
        self.guard.stdout.close()
        if self.guard.returncode < 0 and self.pid:
            # The guard itself was killed; the program's processes share a group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, SIGKILL)


def last_words(log: str) -> str:
    """Return the last line of a log that is not empty."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it wrote nothing")


def free_port(wanted: int | None = None) -> int:
    """Return a port of 127.0.0.1 on which nobody listens: the one wanted, if one is. Raises OSError if that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted or 0))
        return int(probe.getsockname()[1])
