"""Servers of our own: they start and end with their stores, serve several at once, and lose nothing when they are killed."""

import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from samples import GOOD, LOCAL

from llminfra.process import Child
from llminfra.stores import StoreError, chroma, files, open_store, postgres_server, restore
from llminfra.stores.crash import what_survives

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""


@pytest.fixture(params=["chroma", "postgres"])
def alone(request, tmp_path):
    """A server that only this test uses."""
    store = open_store(f"{request.param}:{tmp_path / 'home'}", "docs", 2, timeout_s=3)
    store.upsert(*GOOD)
    yield store
    store.close()


def test_a_server_that_goes_away_is_an_error_and_no_hang(alone, tmp_path):
    pid = alone.server_pid
    with pytest.raises(StoreError, match="another process has it open"):
        open_elsewhere(alone.url)
    second = open_store(alone.url, "docs", timeout_s=20)
    below = psutil.Process(pid).children(recursive=True)
    for one in (*below, psutil.Process(pid)):
        one.suspend()
    with pytest.raises(StoreError, match="server is gone or does not answer"):
        alone.count()
    begun = time.monotonic()
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(StoreError, match="server is gone or does not answer"):
        second.count()
    assert 0.4 < time.monotonic() - begun < 10
    second.close()
    with pytest.raises(StoreError, match="server is gone or does not answer"):
        alone.search([1.0, 0.0])
    psutil.wait_procs(below, 10)
    with open_store(alone.url, "docs", create=False) as again:
        assert again.count() == 2 and again.server_pid != pid
        with pytest.raises(StoreError, match="gone"):
            alone.count()
        with pytest.raises(StoreError):
            alone.snapshot(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        alone.close()
        assert again.count() == 2
        pid = again.server_pid
        family = [psutil.Process(pid), psutil.Process(pid).parent(), *psutil.Process(pid).children(recursive=True)]
        temporary = (again._server if "chroma" in again.url else again._database.server).temporary
        assert Path(temporary).exists()
    assert not psutil.wait_procs(family, 10)[1] and not Path(temporary).exists()


def test_chroma_is_given_up_too_and_each_store_waits_as_long_as_it_was_told(tmp_path):
    url = f"chroma:{tmp_path / 'home'}"
    with open_store(url, "docs", 2, timeout_s=3) as store, open_store(url, "docs", timeout_s=20):
        psutil.Process(store.server_pid).suspend()
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"does not answer \(timed out\)"):
            store.count()
        assert 2 < time.monotonic() - begun < 15
        psutil.Process(store.server_pid).resume()
        assert store.count() == 0


def open_elsewhere(url):
    """Open the store in another process, which must be told that it cannot; raise what it says."""
    code = "from llminfra.stores import open_store, servers; import sys; servers.LOCK_S = 0.2; open_store(sys.argv[1], 'docs')"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    raise StoreError(done.stderr.splitlines()[-1])


@pytest.fixture
def slow_copy(monkeypatch):
    """Let something be done while a snapshot of Chroma is copied and its server stands still."""

    def during(what):
        copy = files.copy

        def call(*given):
            what()
            copy(*given)

        monkeypatch.setattr(files, "copy", call)

    return during


def test_a_snapshot_of_chroma_delays_its_other_stores_and_fails_none(tmp_path, slow_copy):
    """Others search all the time, one is opened and one asks for a snapshot of its own while the server stands still."""
    url, found, faults, opened, over = f"chroma:{tmp_path / 'home'}", [], [], [], threading.Event()

    def caught(work):
        def call():
            try:
                work()
            except BaseException as error:
                faults.append(error)

        return threading.Thread(target=call)

    with open_store(url, "docs", 2) as first, open_store(url, "second", 2) as second:
        first.upsert(*GOOD)
        second.upsert(*GOOD)

        def search():
            while not over.is_set():
                found.append(second.search([1.0, 0.0], 1)[0].id)
                assert second.memory_bytes() > 0 < second.server_pid

        late = [
            caught(lambda: opened.append(open_store(url, "third", 2))),
            caught(lambda: opened.append(open_store(url, "second"))),
            caught(lambda: second.snapshot(tmp_path / "another")),
        ]

        def meanwhile():
            if not late[0].ident:
                for thread in late:
                    thread.start()
                time.sleep(1)
                assert opened == [], "the server stands still: nothing can be opened yet"

        slow_copy(meanwhile)
        searching = [caught(search) for _ in range(3)]
        for thread in searching:
            thread.start()
        first.snapshot(tmp_path / "copy")
        for thread in late:
            thread.join()
        seen = len(found)
        first.upsert([3], [[1.0, 1.0]], [{}])
        second.count()
        over.set()
        for thread in searching:
            thread.join()
        assert faults == [] and set(found) == {1} and seen > 0
        assert {store.server_pid for store in (first, second, *opened)} == {first.server_pid}
        assert [first.count(), second.count(), *sorted(store.count() for store in opened)] == [3, 2, 0, 2]
        for store in opened:
            store.close()
    for copy, name in (("copy", "docs"), ("another", "second")):
        with restore(f"chroma:{tmp_path / copy}-restored", name, tmp_path / copy) as again:
            assert again.count() == 2


def test_while_chroma_is_copied_no_other_process_has_its_folder(tmp_path, slow_copy):
    with open_store(f"chroma:{tmp_path / 'home'}", "docs", 2) as store:
        said = []

        def elsewhere():
            with pytest.raises(StoreError) as error:
                open_elsewhere(store.url)
            said.append(str(error.value))

        slow_copy(elsewhere)
        store.snapshot(tmp_path / "copy")
        assert "another process has it open" in said[0] and store.count() == 0


def test_a_server_that_does_not_come_back_after_a_snapshot_is_an_error_and_opens_again(tmp_path, monkeypatch):
    with open_store(f"chroma:{tmp_path / 'home'}", "docs", 2) as store, open_store(store.url, "second", 2) as second:
        with monkeypatch.context() as patched:
            patched.setattr(chroma.ChromaServer, "command", lambda _: [sys.executable, "-c", "print('no room')"])
            with pytest.raises(StoreError, match="stopped while starting: no room"):
                store.snapshot(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        with pytest.raises(StoreError, match="the Chroma server is gone"):
            second.count()
        with pytest.raises(StoreError, match="does not run any more; close the store and open it again"):
            second.snapshot(tmp_path / "copy")
        with open_store(store.url, "docs", create=False) as again:
            assert again.count() == 0


@pytest.mark.parametrize("engine", ["chroma", "postgres"])
def test_threads_may_open_and_make_the_same_collection_at_once(engine, tmp_path):
    url, faults, ready = f"{engine}:{tmp_path / 'home'}", [], threading.Barrier(4)

    def work(name):
        try:
            ready.wait()
            with open_store(url, name, 2) as store:
                store.upsert(*GOOD)
                assert store.count() == 2
        except BaseException as error:
            faults.append(error)

    before = os.environ.get("no_proxy")
    for name in ("first", "second", "third"):
        threads = [threading.Thread(target=work, args=[name]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == [] and os.environ.get("no_proxy") == before


@pytest.mark.parametrize("engine", LOCAL)
def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(engine, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"(Not a directory|File exists)"):
        open_store(f"{engine}:{tmp_path / 'file' / 'home'}", "docs", 2)


@pytest.mark.parametrize("engine", ["chroma", "postgres"])
def test_a_server_without_room_to_start_is_an_error_of_the_store_and_frees_its_folder(engine, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkdtemp", full)
        with pytest.raises(StoreError, match=r"cannot be started: .*No space left on device"):
            open_store(f"{engine}:{tmp_path / 'home'}", "docs", 2)
    with open_store(f"{engine}:{tmp_path / 'home'}", "docs", 2) as store:
        assert store.count() == 0


def test_what_ends_while_memory_is_counted_counts_nothing(alone, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        ended = psutil.Process(other.pid)
    children = psutil.Process.children
    monkeypatch.setattr(psutil.Process, "children", lambda *given, **named: [*children(*given, **named), ended])
    assert alone.memory_bytes() > 5e6


def noted_folders(url):
    """A program that opens a store, and names each temporary folder that it makes."""
    code = """
        import sys, tempfile
        from llminfra.stores import open_store
        make = tempfile.mkdtemp
        def noted(*given, **named):
            made = make(*given, **named)
            print(made, flush=True)
            return made
        tempfile.mkdtemp = noted
        open_store(sys.argv[1], "docs", 2)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    home = tmp_path / "home"
    with noted_folders(f"postgres:{home}") as owner:
        while not list(home.rglob("PG_VERSION")):
            assert owner.poll() is None
            time.sleep(0.005)
        owner.kill()
        made = [Path(line.strip()) for line in owner.stdout]
    assert owner.returncode == -signal.SIGKILL
    (home / ".data.left").mkdir()  # as by a machine that went down
    with open_store(f"postgres:{home}", "docs", 2) as store:
        store.upsert(*GOOD)
        assert store.count() == 2
        assert not [folder for folder in made if folder.exists()]
    assert sorted(place.name for place in home.iterdir()) == ["data", "lock", "server.log"]


def test_the_folder_of_a_program_goes_with_an_owner_that_is_dying_and_stays_with_one_that_lives(tmp_path):
    """The kernel closes the files of a process that was killed some time before it says that the process is dead."""
    for dying in (True, False):
        folder = tmp_path / f"dying {dying}"
        folder.mkdir()
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = Child(command, str(folder), tmp_path / "log", os.environ)
        if dying:
            child.guard.stdin.close()
            child.guard.wait()
        child.kill()
        assert not psutil.pid_exists(child.pid) and folder.exists() != dying


def test_a_folder_is_free_only_when_its_server_is_gone(tmp_path, monkeypatch):
    """The owner was killed, and its server lives a moment longer: two servers on one folder would spoil it."""
    code = """
        import sys, time
        from llminfra.stores import open_store
        store = open_store(sys.argv[1], "docs", 2)
        print(store.server_pid, flush=True)
        time.sleep(60)
    """
    url, alive = f"chroma:{tmp_path / 'home'}", []
    command = [sys.executable, "-c", textwrap.dedent(code), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        guard = psutil.Process(pid).parent()  # it ends the server when the owner is gone; here a moment later
        guard.suspend()
        owner.kill()
    assert psutil.pid_exists(pid)
    threading.Timer(1, guard.resume).start()
    monkeypatch.setattr(chroma.ChromaServer, "prepare", lambda server: alive.append(psutil.pid_exists(pid)))
    with open_store(url, "docs") as store:
        assert store.count() == 0 and alive == [False]


@pytest.mark.parametrize("engine", LOCAL)
def test_what_was_acknowledged_survives_a_crash(homes, engine, tmp_path):
    url = f"{engine}:{tmp_path / 'home'}"
    result = what_survives(url, dimensions=16, batch=50, after=4)
    assert result.acknowledged >= 200 and result.said == ""
    assert result.acknowledged == result.kept == result.found
    assert result.beyond in (0, result.batch)
    if engine == "postgres":
        loose = what_survives(url, "loose", dimensions=16, batch=50, after=4, synchronous_commit=False)
        assert loose.kept <= loose.acknowledged and loose.kept % 50 == 0
    with open_store(url, "crash") as store:
        store.upsert([10**9], np.ones((1, 16)), [{}])
        assert store.count() == result.kept + result.beyond + 1


def test_what_nothing_keeps_is_lost(tmp_path):
    assert what_survives("exact:", after=2).kept == 0
    loose = what_survives(f"edge:{tmp_path}", after=2, wal_enabled=False)
    assert loose.kept == 0 and loose.acknowledged >= 200
    with pytest.raises(StoreError, match=r"the writer ended before it was killed: .*no setting"):
        what_survives("exact:", "other", nonsense=1)


@pytest.mark.parametrize("engine", LOCAL)
def test_a_program_that_forgets_to_close_leaves_nothing_behind_and_says_nothing(engine, tmp_path):
    code = """
        import sys
        from llminfra.stores import open_store
        store = open_store(sys.argv[1], "docs", 2)
        store.upsert([1], [[1.0, 2.0]], [{}])
        print(getattr(store, "server_pid", 0), store.search([1.0, 0.0])[0].id)
    """
    command = [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code), f"{engine}:{tmp_path / 'home'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    pid, number = map(int, done.stdout.split())
    assert number == 1 and not (pid and psutil.pid_exists(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root runs all the other tests so")
def test_postgres_runs_for_an_ordinary_user_too():
    """The user is `nobody`, who may reach an environment that lies in root's folder."""
    user, folder = pwd.getpwnam("nobody"), Path(tempfile.mkdtemp(dir="/tmp"))
    code = """
        import os, sys
        from llminfra.stores import open_store
        store = open_store(sys.argv[1], "docs", 2)
        print(os.geteuid(), store.count())
    """
    try:
        os.chown(folder, user.pw_uid, user.pw_gid)
        command = [
            *postgres_server.unprivileged(),
            sys.executable,
            "-c",
            textwrap.dedent(code),
            f"postgres:{folder / 'home'}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{user.pw_uid} 0\n", "")
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user changes nothing anyway")
def test_postgres_as_root_opens_no_folder_to_others(homes):
    data = Path(homes["postgres"].partition(":")[2])
    assert stat.S_IMODE(data.parent.stat().st_mode) & 0o077 == 0
    with open_store(homes["postgres"], "keeper") as store:
        assert psutil.Process(store.server_pid).uids().effective == pwd.getpwnam("nobody").pw_uid
        assert psutil.Process(store.server_pid).net_connections("inet") == []
