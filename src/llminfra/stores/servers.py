"""Database servers of our own: one for a folder, shared by the stores of this process, and gone with it.

A server runs under the guard that vLLM runs under too (`llminfra.process`): whatever ends this process ends the server,
and nothing is ever ended by its name. A lock file keeps a second process off the folder until the server is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import psutil

from llminfra.errors import StoreError, first_line
from llminfra.process import Child, last_words
from llminfra.stores import files

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
        self.temporary = ""
        """A folder that only the owner can read, with a short path; it is gone with the server."""
        self._child: Child | None = None
        self._lock = -1
        self._turns = threading.Condition()
        self._at_work = 0
        self._paused = False

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

    def make_temporary(self) -> str:
        """Make the folder for the server's socket and temporary files, and return its path."""
        return tempfile.mkdtemp(prefix="llminfra-", dir="/tmp")

    def start(self) -> None:
        """Start the server and wait until it answers. Raises StoreError with its last words."""
        with self._or_stopped():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = files.lock(self.folder / "lock", LOCK_S)
            except TimeoutError:
                raise StoreError(f"{self.KIND} at {self.folder}: another process has it open; close it there") from None
            self.prepare()
            self._launch()

    @contextlib.contextmanager
    def _or_stopped(self) -> Iterator[None]:
        """Stop what was begun if the server cannot be started, and turn errors of the operating system into a StoreError."""
        try:
            yield
        except OSError as error:
            self.stop()
            raise StoreError(f"{self.KIND} at {self.folder} cannot be started: {first_line(error)}") from error
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        """Start the server's processes on a folder that is locked and prepared."""
        self.temporary = self.make_temporary()
        # The lock is held until the guard has seen the server end, should this process end first.
        self._child = Child(self.command(), self.temporary, self.log, self.environment(), [self._lock])
        try:
            started = self._child.until(self.ready, START_S)
        except TimeoutError:
            said = f"{self.KIND} at {self.folder} did not answer in {START_S} s: {self.last_words()}"
            raise StoreError(said) from None
        if not started:
            raise StoreError(f"{self.KIND} at {self.folder} stopped while starting: {self.last_words()}")

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the server from being paused meanwhile; while it is, wait. Not to be held while calling `paused`."""
        with self._turns:
            self._turns.wait_for(lambda: not self._paused)
            self._at_work += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._turns:
            self._at_work -= 1
            self._turns.notify_all()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the server once nobody uses it, and start it again at the end; whoever wants to use it meanwhile waits.

        The folder stays locked. Raises StoreError if the server is gone, or does not come back.
        """
        with self._turns:
            self._turns.wait_for(lambda: not self._paused)
            self._paused = True
        try:
            with self._turns:
                self._turns.wait_for(lambda: not self._at_work)
            if self._child is None or not self._child.running():
                raise self._gone()
            self._halt()
            try:
                yield
            finally:
                with self._or_stopped():
                    self._launch()
        finally:
            with self._turns:
                self._paused = False
                self._turns.notify_all()

    def let_go(self) -> None:
        """Close what is open towards the server, once nobody uses it any more."""

    @property
    def pid(self) -> int:
        """The process id of the server, 0 while it does not run."""
        return self._child.pid if self._child else 0

    def answers(self) -> bool:
        """Return whether the server answers, also if it is paused; False if it is gone. Raises StoreError if it hangs."""
        with self._turns:
            if self._paused:
                return True
            self._at_work += 1
        try:
            return self._child is not None and self._child.until(self.ready, STOP_S)
        except TimeoutError:
            said = f"{self.KIND} at {self.folder} is there (process {self.pid}) and does not answer; end it"
            raise StoreError(said) from None
        finally:
            self._leave()

    def last_words(self) -> str:
        """Return the last line of the server's log."""
        return last_words(self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else "")

    def stop(self) -> None:
        """Stop the server in order, or kill it if that takes too long; then let others have the folder."""
        self._halt()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _halt(self) -> None:
        """End the server's processes; the folder stays locked."""
        if self._child is not None:
            self._child.stop(STOP_S, self.STOP)
        self._child = None
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary = ""

    def memory_bytes(self) -> int:
        """Return the memory of the server's processes, each page that they share counted once (Linux: PSS)."""
        try:
            server = psutil.Process(self.pid)
            found, below = int(server.memory_full_info().pss), server.children(recursive=True)
        except psutil.NoSuchProcess:
            raise self._gone() from None
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that served a connection has ended meanwhile
                found += process.memory_full_info().pss
        return found

    def _gone(self) -> StoreError:
        said = "does not run any more; close the store and open it again"
        return StoreError(f"{self.KIND} at {self.folder} {said}")


_SERVERS: dict[tuple[str, Path], LocalServer] = {}
_ACCESS = threading.RLock()
Kind = TypeVar("Kind", bound=LocalServer)


def acquire(kind: type[Kind], folder: Path, create: bool) -> Kind:
    """Return the running server of a folder (from `folder_of`); each call wants a `release`. Raises StoreError."""
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
            try:
                server.let_go()
            finally:
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
