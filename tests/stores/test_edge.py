"""Qdrant's engine in the process: its index, and folders that no kill leaves without their points."""

import errno
import gc
import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import qdrant_edge
from samples import GOOD, clustered, numbered

from llminfra.stores import StoreError, open_store

pytestmark = pytest.mark.heavy


def test_why_qdrant_edge_is_not_given_booleans_and_empty_lists(tmp_path):
    (tmp_path / "shard").mkdir()
    vectors = qdrant_edge.EdgeVectorParams(size=2, distance=qdrant_edge.Distance.Dot)
    shard = qdrant_edge.EdgeShard.create(str(tmp_path / "shard"), qdrant_edge.EdgeConfig(vectors=vectors))
    points = [qdrant_edge.Point(1, [1.0, 0.0], {"n": 1}), qdrant_edge.Point(2, [0.0, 1.0], {"n": True})]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    def asked(condition):
        wanted = qdrant_edge.Filter(must=[condition])
        query = qdrant_edge.QueryRequest(limit=9, query=qdrant_edge.Query.Nearest([1.0, 1.0]), filter=wanted)
        return [point.id for point in shard.query(query)]

    assert asked(qdrant_edge.FieldCondition("n", match=qdrant_edge.MatchValue(True))) == [1]
    assert sorted(asked(qdrant_edge.Filter(should=[]))) == [1, 2]
    shard.update(qdrant_edge.UpdateOperation.upsert_points([qdrant_edge.Point(3, [float("nan"), 0.0], {})]))
    assert shard.count(qdrant_edge.CountRequest()) == 3
    shard.close()


def test_edge_indexes_when_told_and_quantizes(fresh):
    vectors = clustered(1000, 64)
    store = fresh("edge", 64, full_scan_threshold=10, max_indexing_threads=1)
    store.upsert(range(1000), vectors, numbered(1000))
    assert store.indexed() == 0 and "graph" not in store.disk_parts()
    wanted = {hit.id for hit in store.search(vectors[0], 10)}
    store.build()
    assert store.indexed() == 1000 and store.disk_parts()["graph"] > 0
    whole = store.disk_parts()["vectors"]
    sizes = {}
    for kind in ("int8", "binary"):
        store.build(quantization=kind)
        assert (
            store.index["quantization"] == kind and store.index["full_scan_threshold"] == 10 and store.indexed() == 1000
        )
        sizes[kind] = store.disk_parts()["quantized vectors"]
        found = store.search(vectors[0], 10, ef=500, rescore=True, oversampling=8)
        assert len({hit.id for hit in found} & wanted) >= 9
        assert store.search(vectors[0], 10, exact=True, ignore_quantization=True)[0].id == 0
    assert sizes["binary"] < sizes["int8"] < whole
    store.build(quantization=None, m=32)
    assert "quantized vectors" not in store.disk_parts() and store.count() == 1000
    assert {hit.id for hit in store.search(vectors[0], 10, ef=500)} == wanted
    store.upsert([5000], vectors[[0]], [{}])
    assert store.indexed() == 1000 and 5000 in {hit.id for hit in store.search(vectors[0], 2)}


def test_edge_needs_an_index_of_the_field_to_filter_over_its_graph(fresh):
    vectors = clustered(3000, 64)
    queries, payloads = (
        clustered(3000, 64)[:40],
        [{"roles": "many" if number % 10 else "few", "year": 2026 + (number % 10 > 0)} for number in range(3000)],
    )
    exact = fresh("exact", 64)
    exact.upsert(range(3000), vectors, payloads)
    found = {}
    for fields in ((), ("roles",)):
        store = fresh("edge", 64, full_scan_threshold=10, max_indexing_threads=1, payload_index=fields)
        store.upsert(range(3000), vectors, payloads)
        store.build()
        hits = [
            (store.search(query, 10, {"roles": "few"}), exact.search(query, 10, {"roles": "few"})) for query in queries
        ]
        assert all(hit.payload == {"roles": "few", "year": 2026} for mine, _ in hits for hit in mine)
        found[fields] = sum(len({hit.id for hit in mine} & {hit.id for hit in right}) for mine, right in hits) / 400
        for query in queries:  # an index of words does not serve a number, so all are compared
            by_year, right = (one.search(query, 10, {"year": 2026}) for one in (store, exact))
            assert {hit.id for hit in by_year} == {hit.id for hit in right}
    assert found[()] < 0.9 < 0.98 < found["roles",]


def test_edge_can_keep_its_vectors_on_disk(fresh):
    store = fresh("edge", 8, on_disk=True, always_ram=False, quantization="int8", quantile=0.99)
    store.upsert(range(50), clustered(50, 8), numbered(50))
    store.build()
    assert store.search(clustered(50, 8)[3], 1, rescore=True)[0].id == 3


KILLED = """
    import os, shutil, sys
    from pathlib import Path
    from llminfra.stores import open_store

    def ends_at(real, calls=[int(sys.argv[2])]):
        def call(*given, **named):
            calls[0] -= 1
            if calls[0] == 0:
                os._exit(9)
            return real(*given, **named)
        return call

    store = open_store(sys.argv[1], "docs") if sys.argv[3] == "rebuild" else None
    steps = ((shutil, "rmtree"), (Path, "mkdir"), (Path, "write_text"), (Path, "rename"), (Path, "replace"))
    for owner, name in steps:
        setattr(owner, name, ends_at(getattr(owner, name)))
    if store is None:
        open_store(sys.argv[1], "docs", 2)
    else:
        store.build(m=8)
    os._exit(0)
"""
"""Make a collection, or build it anew, and end without a word before the Nth change of a folder."""


def killed(url, what):
    """Yield after each place at which a process was killed, until it comes to its end."""
    for step in itertools.count(1):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), url(step), str(step), what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 9), done.stderr
        if done.returncode == 0:
            assert step > 4
            return
        yield step


def test_a_rebuild_of_edge_that_is_killed_anywhere_loses_nothing(tmp_path):
    def url(step):
        with open_store(f"edge:{tmp_path / str(step)}", "docs", 2) as store:
            store.upsert(*GOOD)
        return store.url

    found = set()
    for step in killed(url, "rebuild"):
        folder = tmp_path / str(step)
        with open_store(f"edge:{folder}", "docs", create=False) as store:
            found.add(store.index["m"])
            assert store.count() == 2
            store.build(m=4)
            assert store.count() == 2
        assert [place.name for place in folder.iterdir()] == ["docs"]
        assert len(list((folder / "docs").glob("shard*"))) == 1
    assert found == {16, 8}


def test_a_collection_of_edge_whose_making_was_killed_anywhere_can_be_made_again(tmp_path):
    for step in killed(lambda step: f"edge:{tmp_path / str(step)}", "making"):
        folder = tmp_path / str(step)
        with open_store(f"edge:{folder}", "docs", 2) as store:
            store.upsert(*GOOD)
            assert store.count() == 2
        assert [place.name for place in folder.iterdir()] == ["docs"]


def test_a_rebuild_of_edge_that_fails_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    store = open_store(f"edge:{tmp_path}", "docs", 2)
    store.upsert(*GOOD)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        patched.setattr(Path, "replace", full)
        with pytest.raises(StoreError, match="No space left"):
            store.build(m=8)
    assert (store.count(), store.index["m"]) == (2, 16)
    assert len(list((tmp_path / "docs").glob("shard*"))) == 1
    store.build(m=4)
    store.close()
    with open_store(f"edge:{tmp_path}", "docs") as again:
        assert (again.count(), again.index["m"]) == (2, 4)


def test_a_store_that_cannot_be_closed_says_so(tmp_path):
    store = open_store(f"edge:{tmp_path}", "docs", 2)
    store._shard.close()
    with pytest.raises(StoreError, match="'docs': edge says"):
        store.close()
    store.close()
    open_store(f"edge:{tmp_path}", "docs").close()


@pytest.mark.parametrize("log", [True, False])
def test_edge_is_open_once(fresh, log):
    store = fresh("edge", 2, wal_enabled=log)
    with pytest.raises(StoreError, match="it is open already, here or in another process"):
        open_store(store.url, store.name)


def test_an_edge_store_that_nobody_holds_any_more_can_be_opened_again(tmp_path):
    open_store(f"edge:{tmp_path}", "docs", 2).upsert(*GOOD)
    gc.collect()
    with open_store(f"edge:{tmp_path}", "docs") as store:
        assert store.count() == 2
