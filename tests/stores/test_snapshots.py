"""A snapshot is whole or absent, says what it holds, and is restored elsewhere."""

import contextlib
import errno
import shutil

import pytest
from samples import ALL, GOOD, clustered
from stand_in import stand_in

from llminfra.stores import StoreError, files, open_store, qdrant_server, restore

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""


@pytest.mark.parametrize("engine", ALL)
def test_a_snapshot_is_restored_elsewhere(homes, fresh, engine, tmp_path):
    name, vectors = f"copied_{engine}", clustered(60, 8)
    with open_store(homes[engine], name, 8, "euclid") as store:
        store.upsert(
            range(60), vectors, [{"roles": ["a"] if number % 2 else ["b"], "n": number} for number in range(60)]
        )
        store.snapshot(tmp_path / "snapshot")
        with pytest.raises(StoreError, match="exists; name a new folder"):
            store.snapshot(tmp_path / "snapshot")
        store.delete(range(30))
        assert store.count() == 30
        wanted = store.contents()[59]
    if engine not in ("exact", "faiss"):
        with pytest.raises(StoreError, match="it exists"):
            restore(homes[engine], name, tmp_path / "snapshot")
    with pytest.raises(StoreError, match="holds no snapshot of a collection 'another'"):
        restore(homes[engine], "another", tmp_path / "snapshot")
    with contextlib.ExitStack() as stack:
        # A second PostgreSQL takes seconds to make; its snapshots are of one table, so the server may be the same.
        target = homes[engine] if engine in ("exact", "faiss") else f"{engine}:{tmp_path / 'other'}"
        if engine == "qdrant":
            target = stack.enter_context(stand_in())[1]
            # What a snapshot is to the stand-in lies in the file that was downloaded.
        elif engine == "postgres":
            target = homes[engine]
            drop(target, name)
        again = stack.enter_context(restore(target, name, tmp_path / "snapshot"))
        assert (again.count(), again.dimensions, again.distance) == (60, 8, "euclid")
        assert again.contents()[59] == wanted
        if engine != "faiss":
            assert {hit.id for hit in again.search(vectors[0], 60, {"roles": "a"})} == set(range(1, 60, 2))
        again.upsert([60], vectors[[0]], [{}])
        assert again.count() == 61


def drop(url, name):
    with open_store(url, "dropping", 2) as store:
        store._sql.execute(f"DROP TABLE {name}")


def test_copies_keep_their_holes(tmp_path):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    with open(source / "below" / "holes", "wb") as file:
        file.write(b"begin")
        file.seek(10_000_000)
        file.write(b"end")
        file.truncate(20_000_000)
    (source / "empty").touch()
    files.copy(source, tmp_path / "target")
    copied = tmp_path / "target" / "below" / "holes"
    assert copied.read_bytes() == (source / "below" / "holes").read_bytes()
    sizes = files.allocated(tmp_path / "target", lambda file: file.name)
    assert sizes["empty"] == 0 < sizes["holes"] < 1_000_000


def full(real):
    """Return a function that does its work and then finds the disk full."""

    def call(*given, **named):
        real(*given, **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    return call


@pytest.mark.parametrize("engine", ALL)
def test_of_a_snapshot_that_fails_nothing_is_left_and_it_can_be_tried_again(fresh, engine, tmp_path, monkeypatch):
    store = fresh(engine, 2)
    store.upsert(*GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "_snapshot", full(type(store)._snapshot))
        with pytest.raises(StoreError, match=r"No space left"):
            store.snapshot(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == [] and store.count() == 2
    store.snapshot(tmp_path / "copy")
    assert [place.name for place in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("engine", ["edge", "chroma"])
def test_of_a_restore_that_fails_nothing_is_left_and_it_can_be_tried_again(fresh, engine, tmp_path, monkeypatch):
    store = fresh(engine, 2)
    store.upsert(*GOOD)
    store.snapshot(tmp_path / "copy")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", full(shutil.copytree))
        with pytest.raises(StoreError, match="No space left"):
            restore(f"{engine}:{tmp_path / 'home'}", store.name, tmp_path / "copy")
    with restore(f"{engine}:{tmp_path / 'home'}", store.name, tmp_path / "copy") as again:
        assert again.count() == 2


def test_a_snapshot_says_of_which_collection_and_engine_it_is(tmp_path):
    with open_store("exact:", "docs_old", 2) as store:
        store.upsert(*GOOD)
        store.snapshot(tmp_path / "copy")
    held = "it has the collection 'docs_old' of the engine exact"
    with pytest.raises(StoreError, match=f"holds no snapshot of a collection 'docs' of exact; {held}"):
        restore("exact:", "docs", tmp_path / "copy")
    with pytest.raises(StoreError, match=f"holds no snapshot of a collection 'docs_old' of faiss; {held}"):
        restore("faiss:", "docs_old", tmp_path / "copy")
    with restore("exact:", "docs_old", tmp_path / "copy") as again:
        assert again.count() == 2
    with pytest.raises(StoreError, match="holds no snapshot; name a folder that `snapshot` wrote"):
        restore("exact:", "docs_old", tmp_path / "nothing")


@pytest.mark.parametrize("engine", ["exact", "edge", "qdrant"])
def test_a_snapshot_with_a_part_missing_is_an_error_of_the_store(fresh, engine, tmp_path):
    store = fresh(engine, 2)
    store.snapshot(tmp_path / "copy")
    for place in (tmp_path / "copy").iterdir():
        if place.is_dir():
            shutil.rmtree(place)
        elif place.name != "snapshot.json":
            place.unlink()
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(stand_in())[1] if engine == "qdrant" else f"{engine}:"
        if engine == "edge":
            target += str(tmp_path / "home")
        with pytest.raises(StoreError, match="cannot be restored"):
            restore(target, store.name, tmp_path / "copy")
    (tmp_path / "copy" / "snapshot.json").write_text("[]")
    with pytest.raises(StoreError, match="holds no snapshot"):
        restore(target, store.name, tmp_path / "copy")


def test_a_snapshot_goes_to_the_home_folder_where_its_name_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with open_store("exact:", "docs", 2) as store:
        store.snapshot("~/copy")
    assert (tmp_path / "copy").is_dir() and restore("exact:", "docs", "~/copy").count() == 0


def test_a_qdrant_server_keeps_no_snapshot_whose_download_failed(tmp_path, monkeypatch):
    with stand_in() as (server, url), open_store(url, "docs", 2) as store:

        def refuse(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(qdrant_server, "open", refuse, raising=False)
        with pytest.raises(StoreError, match="No space left"):
            store.snapshot(tmp_path / "copy")
        assert [path for verb, path, *_ in server.seen if verb == "DELETE"]


def test_a_new_folder_is_whole_or_absent(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), files.new_folder(tmp_path / "below" / "one") as fresh:
        (fresh / "half").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "below").iterdir()) == []
    with files.new_folder(tmp_path / "one") as fresh:
        (fresh / "whole").touch()
        assert not (tmp_path / "one").exists()
    assert (tmp_path / "one" / "whole").exists()
    with pytest.raises(OSError, match="not empty"), files.new_folder(tmp_path / "one"):
        pass
    assert sorted(place.name for place in tmp_path.iterdir()) == ["below", "one"]


def test_what_a_database_removes_while_its_folder_is_measured_counts_nothing(tmp_path):
    (tmp_path / "gone").write_bytes(b"x" * 5000)

    def part(file):
        (tmp_path / file).unlink()
        return "part"

    assert sum(files.allocated(tmp_path, part).values()) == 0
