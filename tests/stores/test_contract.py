"""Every engine keeps the same contract: what is stored is found, what does not match is never shown, and errors say so."""

import threading

import numpy as np
import pytest
from samples import ALL, GOOD, LOCAL, THOROUGH, assert_same, clustered, numbered

from llminfra.stores import StoreError, open_store
from llminfra.stores.address import Address

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclid"])
@pytest.mark.parametrize("engine", ALL)
def test_the_nearest_are_those_of_a_full_comparison(fresh, engine, distance):
    vectors, queries = clustered(500, 32), clustered(10, 32, seed=0) + 0.05
    exact = fresh("exact", 32, distance=distance)
    store = fresh(engine, 32, distance=distance, **THOROUGH.get(engine, {}))
    for one in (exact, store):
        one.upsert(range(500), vectors, numbered(500))
    for built in (False, True):
        if built:
            store.build()
        for query in queries:
            wanted, found = exact.search(query, 10), store.search(query, 10)
            assert {hit.id for hit in found} == {hit.id for hit in wanted}
            assert_same(found, wanted)
            assert all(hit.payload == {"number": hit.id} for hit in found)
    assert len(store.search(queries[0], 1)) == 1
    # What the graph does not reach is not found, however many are asked for.
    assert len(store.search(queries[0], 2000)) >= (500 if engine in ("exact", "postgres", "qdrant") else 490)


@pytest.mark.parametrize("engine", ALL)
def test_an_upsert_replaces_all_of_a_vector(fresh, engine):
    store, vectors = fresh(engine, 8), clustered(20, 8)
    store.upsert(range(20), vectors, [{"roles": ["staff", "board"], "text": "old", "old": 1} for _ in range(20)])
    store.upsert([3, 20], -vectors[[3, 4]], [{"roles": "guests"}, {}])
    store.upsert([], np.zeros((0, 8)), [])
    assert store.count() == 21 and store.ids() == set(range(21))
    best = store.search(-vectors[3], 1)[0]
    assert (best.id, best.payload) == (3, {"roles": "guests"})
    assert store.contents()[20] == {} and store.contents()[4]["text"] == "old"
    if engine != "faiss":
        assert 3 not in {hit.id for hit in store.search(vectors[3], 30, {"roles": "staff"})}
        assert 3 not in {hit.id for hit in store.search(vectors[3], 30, {"old": 1})}
        assert [hit.id for hit in store.search(vectors[3], 30, {"roles": "guests"})] == [3]
    store.upsert([3], vectors[[3]], [{}])
    if engine != "faiss":
        assert store.search(vectors[3], 30, {"roles": ["guests"]}) == []


@pytest.mark.parametrize("engine", ALL)
def test_what_is_deleted_is_gone(fresh, engine):
    store, vectors = fresh(engine, 8), clustered(50, 8)
    store.upsert(range(50), vectors, numbered(50))
    store.build()
    store.delete([0, 7, 999])
    store.delete([])
    assert store.count() == 48 and store.ids() == set(range(50)) - {0, 7} == set(store.contents())
    assert {0, 7}.isdisjoint(hit.id for hit in store.search(vectors[7], 48))
    store.upsert([7], vectors[[7]], [{"number": 7}])
    assert store.search(vectors[7], 1)[0].id == 7
    store.delete(range(50))
    assert store.count() == 0 and store.search(vectors[0]) == [] and store.ids() == set()


@pytest.mark.parametrize("engine", ALL)
def test_ids_vectors_and_payloads_of_other_types(fresh, engine):
    store = fresh(engine, 3, distance="dot")
    store.upsert(np.array([0, 2**63 - 1]), iter([[1, 0, 0], [0, 1.5, 0]]), iter([{"span": (1, 2)}, {"z": None}]))
    hit = store.search((0, 1, 0), np.int64(1))[0]
    assert hit == (type(hit))(2**63 - 1, pytest.approx(1.5), {"z": None})
    assert store.contents()[0] == {"span": [1, 2]}


BAD_BATCHES = [
    (([1, 2], [[1.0, 0.0], [1.0]], [{}, {}]), "vector 1 has 1 numbers; the collection takes 2; nothing was written"),
    (([1, 2], np.ones((2, 3)), [{}, {}]), "vector 0 has 3 numbers; the collection takes 2"),
    (([1], [1.0, 2.0], [{}]), "vector 0 has no numbers"),
    (([1, 2], [[1.0, 0.0]], [{}, {}]), "2 ids, 1 vectors and 2 payloads: there must be one of each"),
    (([1, 2], GOOD[1], [{}]), "2 ids, 2 vectors and 1 payloads"),
    (([1, 2], [[1.0, 0.0], [float("nan"), 1.0]], [{}, {}]), "vector 1 holds NaN"),
    (([1, 2], [[1.0, 0.0], [1e39, 1.0]], [{}, {}]), "vector 1 holds NaN, infinity, or more than float32"),
    (([1, 2], [[1.0, 0.0], [0.0, 0.0]], [{}, {}]), "vector 1 is all zeros"),
    (([1, 2], [[1.0, 0.0], ["a", "b"]], [{}, {}]), "holds something that is no number"),
    (([1, 1], GOOD[1], [{}, {}]), "id 1 stands twice"),
    (([1, -2], GOOD[1], [{}, {}]), "id -2 is not between"),
    (([1, 2**63], GOOD[1], [{}, {}]), "is not between 0 and 2"),
    (([1, "2"], GOOD[1], [{}, {}]), "an id is no whole number"),
    (([1, 2], GOOD[1], [{}, {"a": {"b": 1}}]), "payload of id 2: 'a': dict"),
    (([1, 2], GOOD[1], [{}, {"a": [[1]]}]), "payload of id 2: 'a': list"),
    (([1, 2], GOOD[1], [{}, {"a": "x\0"}]), "NUL"),
    (([1, 2], GOOD[1], [{}, {"a": "\ud800"}]), "half a surrogate"),
    (([1, 2], GOOD[1], [{}, {"a": 2**63}]), "64 bits"),
    (([1, 2], GOOD[1], [{}, {"a": float("inf")}]), "no number that JSON can hold"),
    (([1, 2], GOOD[1], [{}, {"a.b": 1}]), "the field 'a.b' must be"),
    (([1, 2], GOOD[1], [{}, "text"]), "must be a dict, not str"),
]


@pytest.mark.parametrize("engine", ALL)
def test_of_a_wrong_batch_nothing_is_written(fresh, engine):
    store = fresh(engine, 2)
    for batch, said in BAD_BATCHES:
        with pytest.raises(StoreError) as error:
            store.upsert(*batch)
        assert said in str(error.value) and str(error.value).startswith(store.url) and "\n" not in str(error.value)
    assert store.count() == 0
    for query, said in (
        ([1.0], "query 0 has 1 numbers"),
        ([float("nan"), 1], "NaN"),
        ([0, 0], "all zeros"),
        (["a", "b"], "no number"),
    ):
        with pytest.raises(StoreError, match=said):
            store.search(query)
    for limit in (0, -1, 1.5, True, "10"):
        with pytest.raises(StoreError, match="limit"):
            store.search([1.0, 0.0], limit)
    store.upsert(*GOOD)
    assert store.count() == 2


@pytest.mark.parametrize("engine", ALL)
def test_a_closed_store_says_so(fresh, engine):
    store = fresh(engine, 2)
    store.close()
    store.close()
    for call in (store.count, store.ids, store.contents, store.build, store.memory_bytes, store.disk_bytes):
        with pytest.raises(StoreError, match="the store is closed; open it again"):
            call()
    with pytest.raises(StoreError, match="closed"):
        store.upsert(*GOOD)
    with pytest.raises(StoreError, match="closed"):
        store.search([1.0, 0.0])


@pytest.mark.parametrize("engine", [*LOCAL, "qdrant"])
def test_a_collection_is_what_it_was_made_as(homes, engine):
    url, name = homes[engine], f"made_{engine}"
    with pytest.raises(StoreError, match="no such collection"):
        open_store(url, name, 2, create=False)
    with pytest.raises(StoreError, match="give `dimensions`"):
        open_store(url, name)
    with open_store(url, name, 2, "euclid", m=8) as store:
        store.upsert(*GOOD)
        assert store.index["m"] == 8
    for given_, said in (
        ({"dimensions": 3}, "it exists with dimensions 2, not 3"),
        ({"distance": "dot"}, "it exists with distance euclid, not dot"),
        ({"m": 9}, "it exists with m=8, not 9; open it without that, and call build"),
    ):
        with pytest.raises(StoreError, match=said):
            open_store(url, name, **given_)
    with open_store(url, name, create=False) as store:
        assert (store.dimensions, store.distance, store.index["m"], store.count()) == (2, "euclid", 8, 2)
    with open_store(url, name, 2, "euclid", m=8) as store:
        assert store.search([1.0, 0.0], 1)[0].score == pytest.approx(0)


@pytest.mark.parametrize("engine", ALL)
def test_settings_are_checked_by_name_and_value(homes, engine):
    with pytest.raises(StoreError, match=r"no setting 'nonsense'.*; it takes: "):
        open_store(homes[engine], "settings", 2, nonsense=1)
    store = open_store(homes[engine], "settings", 2)
    with store, pytest.raises(StoreError, match="search: no setting 'nonsense'"):
        store.search([1.0, 0.0], nonsense=1)
    if engine == "exact":
        return
    for wrong in (-1, True, "16", 1.0, None, 10**9):
        with pytest.raises(StoreError, match=r"m=.* must be a whole number from"):
            open_store(homes[engine], "settings", 2, m=wrong)
    with pytest.raises(StoreError, match="'ef_constructt'; did you mean 'ef_construct'"):
        open_store(homes[engine], "settings", 2, ef_constructt=1)


@pytest.mark.parametrize("engine", ["edge", "postgres", "qdrant"])
def test_numbers_and_names_in_settings_are_checked(homes, engine):
    with open_store(homes[engine], "numbers", 2) as store:
        for wrong in (float("nan"), float("inf"), 0, -1.0, True, "2"):
            with pytest.raises(StoreError, match=r"oversampling=.* must be a number above 0"):
                store.search([1.0, 0.0], oversampling=wrong)
        assert store.search([1.0, 0.0], oversampling=2) == []
    if engine != "postgres":
        for wrong in ([1], "roles", [None]):
            with pytest.raises(StoreError, match=r"payload_index=.* must be a list of strings"):
                open_store(homes[engine], "numbers", 2, payload_index=wrong)


@pytest.mark.parametrize("engine", ALL)
def test_a_limit_beyond_all_is_refused_and_a_large_one_served(fresh, engine):
    store = fresh(engine, 2)
    store.upsert(*GOOD)
    with pytest.raises(StoreError, match="from 1 to 2147483647"):
        store.search([1.0, 0.0], 10**30)
    assert len(store.search([1.0, 0.0], 10_000_000)) == 2


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "30", True, None])
def test_a_time_to_wait_is_a_time(homes, timeout_s):
    for engine in ("exact", "postgres"):
        with pytest.raises(StoreError, match=r"timeout_s=.* must be a number of seconds above 0"):
            open_store(homes[engine], "timed", 2, timeout_s=timeout_s)


def test_a_collection_of_a_version_that_lacked_a_setting_says_so():
    address = Address("exact:", "docs", None, None)
    with pytest.raises(StoreError, match="another version made it, without m; take another name"):
        address.settled({"ef": 1}, {"m": 16})
    assert address.settled({"ef": 1}, {"ef": 1}) == {"ef": 1}


def test_urls_and_names_are_checked(tmp_path):
    for url, said in (
        ("redis:/x", "no engine; a URL begins with one of exact:, faiss:"),
        ("/a/folder", "no engine"),
        ("edge:", "names no folder"),
        ("chroma:", "names no folder"),
        ("postgres:", "names no folder"),
        ("exact:/x", "keeps nothing on disk"),
        ("faiss:/x", "keeps nothing on disk"),
        ("edge:~nobody-of-that-name/x", "names no folder"),
        ("chroma:/a\0b", "names no folder"),
        ("http:", "names no host"),
        ("http://localhost:six", "is no URL"),
    ):
        with pytest.raises(StoreError, match=said):
            open_store(url, "docs", 2)
    for name in ("ab", "Docs", "1abc", "a-b-c", "a" * 49, "../etc", ""):
        with pytest.raises(StoreError, match="3 to 48"):
            open_store("exact:", name, 2)
    for dimensions in (0, -1, 2.0, True, 10**6):
        with pytest.raises(StoreError, match="dimensions"):
            open_store("exact:", "docs", dimensions)
    with pytest.raises(StoreError, match="one of cosine, dot, euclid"):
        open_store("exact:", "docs", 2, "hamming")
    with pytest.raises(StoreError, match="api_key"):
        open_store("exact:", "docs", 2, api_key="x")
    for engine in LOCAL:
        with pytest.raises(StoreError, match=r"no database|no such collection"):
            open_store(f"{engine}:{tmp_path / 'nothing'}", "docs", create=False)
    assert not (tmp_path / "nothing").exists()


def test_nothing_of_anybody_else_is_touched(tmp_path):
    """A folder that is there and is no collection stays as it is."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("years of work")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    (tmp_path / "half" / "shard-1").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("docs", "half", "file"):
        with pytest.raises(StoreError, match="is there and is no collection"):
            open_store(f"edge:{tmp_path}", name, 2)
    with pytest.raises(StoreError, match="is there and is no database"):
        open_store(f"postgres:{tmp_path}", "docs", 2)
    with open_store(f"edge:{tmp_path}", "mine", 2):
        (tmp_path / "mine" / "shard-notes").mkdir()
    open_store(f"edge:{tmp_path}", "mine").close()
    assert (tmp_path / "mine" / "shard-notes").exists() and (tmp_path / "half" / "shard-1").exists()
    assert (tmp_path / "docs" / "thesis.txt").exists() and (tmp_path / "data" / "thesis.txt").exists()


@pytest.mark.parametrize("engine", LOCAL)
def test_a_folder_keeps_several_collections(homes, engine):
    with open_store(homes[engine], "first", 2) as first, open_store(homes[engine], "second", 3, "dot") as second:
        first.upsert(*GOOD)
        second.upsert([1], [[1.0, 2.0, 3.0]], [{"of": "second"}])
        assert (first.count(), second.count()) == (2, 1)
        first.delete([1])
        assert second.search([1.0, 0.0, 0.0])[0].payload == {"of": "second"}
    with open_store(homes[engine], "first") as first, open_store(homes[engine], "second") as second:
        assert (first.ids(), second.ids(), second.dimensions) == ({2}, {1}, 3)


@pytest.mark.parametrize("engine", LOCAL)
def test_sizes_are_measured(homes, fresh, engine):
    store = fresh(engine, 256)
    before = store.disk_bytes()
    store.upsert(range(1000), clustered(1000, 256), numbered(1000))
    assert 1000 * 256 * 4 < store.disk_bytes() - before < 20_000_000
    if engine == "edge":
        assert store.memory_bytes() is None
    else:
        assert 5e6 < store.memory_bytes() < 5e8
    assert fresh("exact", 2).disk_bytes() is None


def test_threads_share_a_store(fresh):
    for engine in ("exact", *LOCAL):
        store, vectors, wrong = fresh(engine, 8), clustered(100, 8), []
        store.upsert(range(100), vectors, numbered(100))

        def ask(first, store=store, vectors=vectors, wrong=wrong):
            for number in range(first, 100, 4):
                if store.search(vectors[number], 1)[0].id != number:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
