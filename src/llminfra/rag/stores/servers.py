"""Database servers of our own: one for a folder, shared by the stores of this process, and gone with it.

A server runs under the guard that vLLM runs under too (`llminfra.engine.guard`): whatever ends this process ends the server,
and nothing is ever ended by its name. A lock file keeps a second process off the folder until the server is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import psutil

from llminfra.engine import guard
from llminfra.engine.errors import last_words
from llminfra.rag.stores.errors import StoreError

START_S = 60
STOP_S = 20
LOCK_S = 10
"""How long a folder may still be held by a process that is ending."""


class LocalServer:
    """A server on a folder's data. Subclasses say how it is made, started, asked whether it is ready, and stopped."""

    KIND: ClassVar[str]
    STOP: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.users = 0
        self.pid = 0
        """The process id of the server, 0 while it does not run."""
        self.temporary = ""
        """A folder that only the owner can read, with a short path; it is gone with the server."""
        self._guard: subprocess.Popen[str] | None = None
        self._lock = -1

    def prepare(self) -> None:
        """Make what the server needs before its first start."""

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return the server's environment."""
        return os.environ

    def ready(self) -> bool:
        """Return whether the server answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and wait until it answers. Raises StoreError with its last words."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self.temporary = tempfile.mkdtemp(prefix="llminfra-", dir="/tmp")
        try:
            self.prepare()
            with open(self.log, "wb") as log:
                self._guard = subprocess.Popen(
                    [sys.executable, "-S", guard.__file__, str(os.getpid()), self.temporary, *self.command()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=self.environment(),
                    start_new_session=True,
                    pass_fds=[self._lock],  # held until the guard has seen the server end, should we end first
                )
            assert self._guard.stdout is not None
            self.pid = int(self._guard.stdout.readline() or 0)
            deadline = time.monotonic() + START_S
            while not self.ready():
                if not self.running():
                    raise StoreError(f"{self.KIND} at {self.folder} stopped while starting: {self.last_words()}")
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.KIND} at {self.folder} did not answer in {START_S} s: {self.last_words()}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def let_go(self) -> None:
        """Close what is open towards the server, once nobody uses it any more."""

    def running(self) -> bool:
        """Return whether the server is alive."""
        return self._guard is not None and self._guard.poll() is None

    def answers(self) -> bool:
        """Return whether the server answers, False if it is gone. Raises StoreError if it is there and does not."""
        deadline = time.monotonic() + STOP_S
        while self.running():
            if self.ready():
                return True
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.KIND} at {self.folder} is there (process {self.pid}) and does not answer; end it"
                )
            time.sleep(0.02)
        return False

    def last_words(self) -> str:
        """Return the last line of the server's log."""
        return last_words(self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else "")

    def stop(self) -> None:
        """Stop the server in order, or kill it if that takes too long; then let others have the folder."""
        if self._guard is not None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                if self.running() and self.pid:
                    os.kill(self.pid, self.STOP)
                    self._guard.wait(STOP_S)
            assert self._guard.stdin is not None and self._guard.stdout is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard.stdout.close()
        self._guard, self.pid = None, 0
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def memory_bytes(self) -> int:
        """Return the memory of the server's processes, each page that they share counted once (Linux: PSS)."""
        try:
            processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
            return sum(process.memory_full_info().pss for process in processes)
        except psutil.NoSuchProcess:
            raise StoreError(
                f"{self.KIND} at {self.folder} does not run any more; close the store and open it again"
            ) from None

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    os.close(self._lock)
                    self._lock = -1
                    raise StoreError(
                        f"{self.KIND} at {self.folder}: another process has it open; close it there"
                    ) from None
                time.sleep(0.05)


_SERVERS: dict[tuple[str, Path], LocalServer] = {}
_ACCESS = threading.RLock()
Kind = TypeVar("Kind", bound=LocalServer)


def acquire(kind: type[Kind], folder: Path, create: bool) -> Kind:
    """Return the running server of a folder; each call wants a `release`. Raises StoreError."""
    folder = folder.expanduser().resolve()
    with _ACCESS:
        server = _SERVERS.get((kind.KIND, folder))
        if server is None or not server.answers():
            new = kind(folder)
            if not create and not new.data.exists():
                raise StoreError(f"{kind.KIND}:{folder}: there is no database; open it with create=True to make one")
            if server is not None:
                server.stop()  # it died, and its folder is still locked
            new.start()
            _SERVERS[kind.KIND, folder] = server = new
        assert isinstance(server, kind)
        server.users += 1
        return server


def release(server: LocalServer) -> None:
    """Give a server back; with its last user it stops."""
    with _ACCESS:
        server.users -= 1
        if server.users == 0:
            server.let_go()
            server.stop()
            if _SERVERS.get((server.KIND, server.folder)) is server:
                del _SERVERS[server.KIND, server.folder]


@atexit.register
def stop_all() -> None:
    """Stop in order what a program that ends left open."""
    with _ACCESS:
        for server in _SERVERS.values():
            server.stop()
        _SERVERS.clear()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
