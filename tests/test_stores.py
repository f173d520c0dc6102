"""Every engine keeps the same contract: what is stored is found, what does not match is never shown, and errors say so."""

import contextlib
import json
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
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import qdrant_edge
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from llminfra.rag.stores import StoreError, chroma, files, filters, open_store, postgres_server, restore
from llminfra.rag.stores.crash import what_survives

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""

LOCAL = ["edge", "chroma", "postgres"]
"""Engines with a folder."""
FILTERING = ["exact", *LOCAL, "qdrant"]
ALL = [*FILTERING, "faiss"]
THOROUGH = {
    "chroma": {"ef": 600},
    "postgres": {"ef": 600},
    "edge": {"full_scan_threshold": 10, "ef": 600, "max_indexing_threads": 1},
    "faiss": {"ef": 600},
}
"""Settings with which a search of few vectors misses none, by way of the graph."""


def clustered(count, dimensions, seed=0):
    """Vectors in ten clusters: near ones are near, as in text."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, dimensions))
    return (centres[rng.integers(10, size=count)] + 0.4 * rng.normal(size=(count, dimensions))).astype(np.float32)


class StandIn(BaseHTTPRequestHandler):
    """Answers as a Qdrant server does: each request must be what the client's models allow, extra fields refused."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].strip("/").split("/")
        self.server.seen.append((self.command, self.path, self.headers.get("api-key"), body))
        client, name, rest = self.server.client, path[1], [self.command, *path[2:]]
        if self.server.key not in (None, self.headers.get("api-key")):
            return self._answer({"status": {"error": "forbidden"}}, 401)
        if rest == ["GET", "exists"]:
            result = {"exists": client.collection_exists(name)}
        elif rest == ["PUT"]:
            asked = models.CreateCollection.model_validate_json(body)
            result = client.create_collection(name, asked.vectors, metadata=asked.metadata)
        elif not client.collection_exists(name) and "upload" not in rest:
            return self._answer({"status": {"error": f"Not found: Collection `{name}` doesn't exist!"}}, 404)
        elif rest == ["GET"]:
            result = client.get_collection(name)
        elif rest == ["PATCH"]:
            asked = models.UpdateCollection.model_validate_json(body)
            client._client.collections[name].config.metadata = asked.metadata
            result = True
        elif rest == ["PUT", "index"]:
            models.CreateFieldIndex.model_validate_json(body)
            result = {"operation_id": 1, "status": "completed"}
        elif rest == ["PUT", "points"]:
            asked = TypeAdapter(models.PointInsertOperations).validate_json(body)
            result = client.upsert(name, asked.points)
        elif rest == ["POST", "points", "delete"]:
            result = client.delete(name, TypeAdapter(models.PointsSelector).validate_json(body))
        elif rest == ["POST", "points", "query"]:
            asked = models.QueryRequest.model_validate_json(body)
            assert isinstance(asked.params, models.SearchParams) and asked.with_payload is True
            result = client.query_points(name, asked.query, query_filter=asked.filter, limit=asked.limit)
        elif rest == ["POST", "points", "count"]:
            asked = models.CountRequest.model_validate_json(body)
            result = client.count(name, exact=asked.exact)
        elif rest == ["POST", "points", "scroll"]:
            asked = models.ScrollRequest.model_validate_json(body)
            rows, offset = client.scroll(name, limit=asked.limit, offset=asked.offset, with_payload=asked.with_payload)
            result = {"points": [json.loads(row.model_dump_json()) for row in rows], "next_page_offset": offset}
        elif rest[1] == "snapshots":
            return self._snapshot(name, rest, body)
        self._answer({"status": "ok", "time": 0.0, "result": result})

    def _snapshot(self, name, rest, body):
        client = self.server.client
        if rest == ["POST", "snapshots"]:
            config = client.get_collection(name).config
            rows = client.scroll(name, limit=10**6, with_payload=True, with_vectors=True)[0]
            kept = [config.params.vectors.model_dump_json(), config.metadata, [row.model_dump_json() for row in rows]]
            self.server.snapshots[name] = json.dumps(kept).encode()
            return self._answer({"status": "ok", "time": 0.0, "result": {"name": "one.snapshot", "size": 1}})
        if rest == ["GET", "snapshots", "one.snapshot"]:
            return self._send(self.server.snapshots[name], 200)
        if rest[0] == "POST":
            start = body.index(b"\r\n\r\n") + 4
            vectors, metadata, rows = json.loads(body[start : body.rindex(b"\r\n--")])
            client.create_collection(name, models.VectorParams.model_validate_json(vectors), metadata=metadata)
            found = [models.Record.model_validate_json(row) for row in rows]
            client.upsert(
                name, [models.PointStruct(id=row.id, vector=row.vector, payload=row.payload) for row in found]
            )
        return self._answer({"status": "ok", "time": 0.0, "result": True})

    def _answer(self, answer, status=200):
        plain = {
            name: part.model_dump(mode="json") if hasattr(part, "model_dump") else part for name, part in answer.items()
        }
        self._send(json.dumps(plain).encode(), status)

    def _send(self, body, status):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _handle


@contextlib.contextmanager
def stand_in(key=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.client, server.seen, server.snapshots, server.key = QdrantClient(":memory:"), [], {}, key
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """A URL for each engine; a store that stays open keeps its server up for all tests."""
    with contextlib.ExitStack() as stack:
        found = {"exact": "exact:", "faiss": "faiss:", "qdrant": stack.enter_context(stand_in())[1]}
        for engine in LOCAL:
            found[engine] = f"{engine}:{tmp_path_factory.mktemp(engine) / 'home'}"
            stack.enter_context(open_store(found[engine], "keeper", 2))
        yield found


COUNTER = iter(range(10**6))


@pytest.fixture
def fresh(homes):
    """Make a new collection of an engine."""
    with contextlib.ExitStack() as stack:
        yield lambda engine, dimensions=8, **given: stack.enter_context(
            open_store(homes[engine], f"fresh_{next(COUNTER)}", dimensions, **given)
        )


def numbered(count):
    return [{"number": number} for number in range(count)]


def assert_same(found, wanted):
    """The same vectors with the same scores; those of one score may stand in any order."""
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=2e-4, rel=1e-4)
    scores = [round(hit.score, 3) for hit in wanted]
    clear = [hit.id for hit, score in zip(wanted, scores, strict=True) if Counter(scores)[score] == 1]
    assert set(clear[:-1]) <= {hit.id for hit in found}
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


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


WORDS = [
    "staff",
    "Staff",
    "",
    "a",
    "é",
    "e\u0301",
    "a%",
    "a_",
    "%",
    'a"b',
    "a\\",
    "x'y",
    "a,b",
    "{a}",
    "1",
    "True",
    "x" * 99,
]
WORDS += ["x" * 100, "👩‍🚀", "a\nb", " a", "null", "roles"]
NUMBERS = [0, 1, -1, 2, 2**62, 2**63 - 1, -(2**63)]
HELD = [*WORDS, *NUMBERS, True, False, None, 1.0, 0.0, 0.5, 1e300, -0.0]
ASKED = st.sampled_from([*WORDS, *NUMBERS])
FIELDS = st.sampled_from(["roles", "team", "n"])
WHERE = st.dictionaries(FIELDS, ASKED | st.lists(ASKED, max_size=3), max_size=2)


def matches_plainly(payload, where):
    """What a filter means, said once more and otherwise."""
    for field, wanted in where.items():
        held = payload.get(field)
        held = held if isinstance(held, list) else [held]
        wanted = wanted if isinstance(wanted, list) else [wanted]
        if not any(type(a) is type(b) and a == b for a in held for b in wanted):
            return False
    return True


@pytest.fixture(scope="module")
def labelled(homes):
    """A collection in each engine with the same vectors, and the same payloads of everything that is hard to tell apart."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(150):
        payload = {}
        for field in ("roles", "team", "n"):
            held = [HELD[place] for place in rng.choice(len(HELD), rng.integers(0, 4), replace=False)]
            if rng.random() < 0.8:
                payload[field] = held[0] if len(held) == 1 and rng.random() < 0.5 else held
        found.append(payload)
    vectors = clustered(150, 8, seed=1)
    with contextlib.ExitStack() as stack:
        stores = {}
        for engine in FILTERING:
            index = {**THOROUGH.get(engine, {})}
            if engine in ("edge", "qdrant"):
                index["payload_index"] = ["roles"]
            stores[engine] = stack.enter_context(open_store(homes[engine], "labelled", 8, **index))
            stores[engine].upsert(range(150), vectors, found)
            stores[engine].build()
        yield stores, found


@pytest.mark.parametrize("engine", FILTERING)
def test_a_filter_shows_what_matches_nearest_first_and_nothing_else(labelled, engine):
    stores, payloads = labelled
    sizes = []

    @settings(max_examples=60, database=None, derandomize=True, deadline=None)
    @given(WHERE, st.integers(0, 149), st.sampled_from([1, 5, 150]))
    def check(where, near, limit):
        query = clustered(150, 8, seed=1)[near] + 0.01
        found = stores[engine].search(query, limit, where)
        matching = {number for number, payload in enumerate(payloads) if matches_plainly(payload, where)}
        assert {hit.id for hit in found} <= matching
        assert len(found) == min(limit, len(matching))
        assert_same(found, stores["exact"].search(query, limit, where))
        assert all(hit.payload == payloads[hit.id] for hit in found)
        assert all(kinds(hit.payload) == kinds(payloads[hit.id]) for hit in found)
        sizes.append(len(matching))

    check()
    assert len(set(sizes)) > 5 and 0 in sizes and 150 in sizes


def kinds(payload):
    return {
        field: [type(one) for one in (held if isinstance(held, list) else [held])] for field, held in payload.items()
    }


@pytest.mark.parametrize("exact", [False, None, True])
def test_postgres_filters_alike_with_and_without_its_index(labelled, exact):
    stores, _ = labelled
    for word in WORDS:
        for where in ({"roles": word}, {"roles": [word, "staff"], "n": [0, 1, 2]}, None):
            found = stores["postgres"].search(clustered(1, 8)[0], 30, where, exact=exact)
            assert_same(found, stores["exact"].search(clustered(1, 8)[0], 30, where))


@pytest.mark.parametrize("engine", FILTERING)
def test_no_role_no_result(labelled, engine):
    store = labelled[0][engine]
    query = clustered(1, 8)[0]
    for where in (
        {"roles": []},
        {"roles": [], "team": "a"},
        {"roles": frozenset()},
        {"unknown": "a"},
        {"roles": "nobody"},
    ):
        assert store.search(query, 10, where) == []
    assert len(store.search(query, 10, {})) == len(store.search(query, 10)) == 10


@pytest.mark.parametrize("engine", FILTERING)
def test_a_filter_that_engines_understand_differently_is_refused(labelled, engine):
    store, query = labelled[0][engine], clustered(1, 8)[0]
    for where in (
        {"n": True},
        {"n": 1.0},
        {"n": None},
        {"n": [1, False]},
        {"n": {"a": 1}},
        {"a.b": 1},
        {"a b": 1},
        {1: 1},
        "roles",
    ):
        with pytest.raises(StoreError, match=r"where"):
            store.search(query, 10, where)
    with pytest.raises(StoreError, match="NUL"):
        store.search(query, 10, {"n": "a\0"})
    with pytest.raises(StoreError, match="64 bits"):
        store.search(query, 10, {"n": 2**64})


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


def test_why_chroma_is_always_given_a_list_of_words(fresh):
    """An upsert that does not name a field leaves the old one: a document whose roles were taken away would keep them."""
    collection = fresh("chroma", 2)._collection
    for metadata in ({"roles": ["board"], "n": 1}, {"n": 2}):
        collection.upsert(["1"], embeddings=[[1.0, 2.0]], metadatas=[metadata])
    assert collection.get(where={"roles": {"$contains": "board"}})["metadatas"] == [{"roles": ["board"], "n": 2}]


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


GOOD = ([1, 2], [[1.0, 0.0], [0.0, 1.0]], [{}, {}])
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


def test_urls_and_names_are_checked(tmp_path):
    for url, said in (
        ("redis:/x", "no engine; a URL begins with one of exact:, faiss:"),
        ("/a/folder", "no engine"),
        ("edge:", "names no folder"),
        ("chroma:", "names no folder"),
        ("postgres:", "names no folder"),
        ("exact:/x", "keeps nothing on disk"),
        ("faiss:/x", "keeps nothing on disk"),
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
    with pytest.raises(StoreError, match="is there and is no collection"):
        open_store(f"edge:{tmp_path}", "docs", 2)
    with pytest.raises(StoreError, match="is there and is no database"):
        open_store(f"postgres:{tmp_path}", "docs", 2)
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


def test_a_cut_off_rebuild_of_edge_loses_nothing(tmp_path):
    url = f"edge:{tmp_path}"
    with open_store(url, "docs", 2) as store:
        store.upsert(*GOOD)
    (tmp_path / "docs").rename(tmp_path / ".docs.llminfra-old")
    (tmp_path / ".docs.llminfra-new").mkdir()
    with open_store(url, "docs", create=False) as store:
        assert store.count() == 2
        store.build(m=4)
        assert store.count() == 2
    assert [place.name for place in tmp_path.iterdir()] == ["docs"]


def test_postgres_builds_each_of_its_indexes(fresh):
    vectors = clustered(400, 64)
    store, exact = fresh("postgres", 64), fresh("exact", 64)
    for one in (store, exact):
        one.upsert(range(400), vectors, numbered(400))
    name, sizes = f"{store.name}_vectors", {}
    wanted = exact.search(vectors[0], 10)
    many = {"exact": False, "ef": 400, "probes": 8, "oversampling": 8}
    for index in (
        {"index": "hnsw", "quantization": None},
        {"quantization": "halfvec"},
        {"quantization": "binary"},
        {"index": "ivfflat", "lists": 8, "quantization": None},
        {"quantization": "halfvec"},
        {"index": None, "quantization": None},
    ):
        store.build(**index)
        kind = (store.index["index"], store.index["quantization"])
        sizes[kind] = store.disk_parts().get(name, 0)
        found = store.search(vectors[0], 10, **many)
        assert len({hit.id for hit in found} & {hit.id for hit in wanted}) >= 9
        plan = " ".join(store.explain(vectors[0], 10, {"number": [1, 2]}, **many) + store.explain(vectors[0], **many))
        assert (name in plan) == (kind[0] is not None)
        assert name not in " ".join(store.explain(vectors[0], exact=True))
        raw = store.search(vectors[0], 10, rescore=False, **many)
        assert [hit.score for hit in raw] == sorted((hit.score for hit in raw), reverse=True)
    assert sizes["hnsw", "binary"] < sizes["hnsw", "halfvec"] < sizes["hnsw", None]
    assert sizes[None, None] == 0 < sizes["ivfflat", "halfvec"] < sizes["ivfflat", None]


def test_postgres_goes_on_until_enough_match(fresh):
    """A vector index alone finds the nearest first and then drops what does not match."""
    store, vectors = fresh("postgres", 16), clustered(2000, 16)
    rare = np.argsort(vectors @ vectors[0])[:20]
    payloads = [{"roles": "rare" if number in set(rare) else "common"} for number in range(2000)]
    store.upsert(range(2000), vectors, payloads)
    store._sql.execute(f"DROP INDEX {store.name}_terms")  # or PostgreSQL finds the twenty there, and sorts them
    given_ = {"where": {"roles": "rare"}, "exact": False, "ef": 40}
    assert len(store.search(vectors[0], 10, **given_, iterative_scan="off")) < 10
    assert len(store.search(vectors[0], 10, **given_, max_scan_tuples=100)) < 10
    assert len(store.search(vectors[0], 10, **given_)) == 10
    relaxed = store.search(vectors[0], 10, **given_, iterative_scan="relaxed_order")
    assert len(relaxed) == 10 and all(hit.payload == {"roles": "rare"} for hit in relaxed)


def test_postgres_takes_the_url_of_a_server(homes):
    with open_store(homes["postgres"], "byurl", 2) as store:
        store.upsert(*GOOD)
        folder = store._database.server.temporary
        with open_store(f"postgresql:///postgres?host={folder}&user=postgres", "byurl") as other:
            assert other.count() == 2 and other.memory_bytes() is None and other.server_pid == 0
        store._sql.execute("CREATE TABLE theirs (id int)")
    with pytest.raises(StoreError, match="a table of that name that is no store"):
        open_store(homes["postgres"], "theirs", 2)
    with pytest.raises(StoreError, match="cannot be opened: postgres says"):
        open_store("postgresql:///postgres?host=/nonexistent", "docs", 2, timeout_s=2)


def test_postgres_says_what_it_refuses(fresh):
    with pytest.raises(StoreError, match="2000 dimensions"):
        fresh("postgres", 2001)
    store = fresh("postgres", 2001, index=None)
    store.upsert([1], np.ones((1, 2001)), [{}])
    store.build(index="hnsw", quantization="halfvec")
    with pytest.raises(StoreError, match="2000 dimensions"):
        store.build(quantization=None)
    assert store.index["quantization"] == "halfvec" and store.count() == 1


def test_chroma_changes_ef_alone(fresh):
    store = fresh("chroma", 8, ef=10)
    store.upsert(range(50), clustered(50, 8), numbered(50))
    store.build(ef=200)
    with pytest.raises(StoreError, match="cannot change m of a collection"):
        store.build(m=4)
    with pytest.raises(StoreError, match="Chroma takes 5461 at once"):
        store.upsert(range(5462), np.ones((5462, 8)), [{} for _ in range(5462)])
    with open_store(store.url, store.name, ef=200) as again:
        assert again.index == {"m": 16, "ef_construct": 100, "ef": 200} and again.count() == 50
    connections = psutil.Process(store.server_pid).net_connections()
    assert connections and all(one.laddr.ip == "127.0.0.1" for one in connections)


@pytest.mark.parametrize(
    ("index", "least"), [("flat", 10), ("ivf", 9), ("pq", 5), ("ivfpq", 5), ("hnsw", 9), ("sq8", 9)]
)
def test_faiss_has_the_indexes_of_the_books(fresh, index, least):
    vectors = clustered(2000, 32)
    store = fresh("faiss", 32, index=index, nlist=16, pq_m=16)
    store.upsert(range(2000), vectors, numbered(2000))
    with fresh("exact", 32) as exact:
        exact.upsert(range(2000), vectors, numbered(2000))
        wanted = {hit.id for hit in exact.search(vectors[0], 10)}
    found = store.search(vectors[0], 10, nprobe=8, ef=64)
    assert len({hit.id for hit in found} & wanted) >= least
    size = store.memory_bytes()
    assert size < vectors.nbytes if index in ("pq", "ivfpq", "sq8") else size >= vectors.nbytes
    with pytest.raises(StoreError, match="cannot filter"):
        store.search(vectors[0], 10, {"number": 1})


def test_faiss_says_what_does_not_fit(fresh):
    with pytest.raises(StoreError, match="pq_m=5 does not divide 32"):
        fresh("faiss", 32, index="pq", pq_m=5)
    store = fresh("faiss", 32, index="pq")
    store.upsert(range(3), clustered(3, 32), numbered(3))
    with pytest.raises(StoreError, match="faiss says"):
        store.build()


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


@pytest.fixture(params=["chroma", "postgres"])
def alone(request, tmp_path):
    """A server that only this test uses."""
    store = open_store(f"{request.param}:{tmp_path / 'home'}", "docs", 2, timeout_s=3)
    store.upsert(*GOOD)
    yield store
    store.close()


def test_a_server_that_goes_away_is_an_error_and_no_hang(alone):
    pid = alone.server_pid
    with pytest.raises(StoreError, match="another process has it open"):
        open_elsewhere(alone.url)
    second = open_store(alone.url, "docs", timeout_s=20)
    below = psutil.Process(pid).children(recursive=True)
    for one in (*below, psutil.Process(pid)):
        one.suspend()
    if "postgres" in alone.url:  # the connection of Chroma's client is shared, and waits as long as the last one said
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
        alone.close()
        assert again.count() == 2
        pid = again.server_pid
        family = [psutil.Process(pid), psutil.Process(pid).parent(), *psutil.Process(pid).children(recursive=True)]
        temporary = (again._server if "chroma" in again.url else again._database.server).temporary
        assert Path(temporary).exists()
    assert not psutil.wait_procs(family, 10)[1] and not Path(temporary).exists()


def test_chroma_is_given_up_too(tmp_path):
    with open_store(f"chroma:{tmp_path / 'home'}", "docs", 2, timeout_s=3) as store:
        psutil.Process(store.server_pid).suspend()
        with pytest.raises(StoreError, match=r"does not answer \(timed out\)"):
            store.count()
        psutil.Process(store.server_pid).resume()
        assert store.count() == 0


def open_elsewhere(url):
    """Open the store in another process, which must be told that it cannot; raise what it says."""
    code = "from llminfra.rag.stores import open_store, servers; import sys; servers.LOCK_S = 0.2; open_store(sys.argv[1], 'docs')"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    raise StoreError(done.stderr.splitlines()[-1])


def test_a_folder_is_free_only_when_its_server_is_gone(tmp_path, monkeypatch):
    """The owner was killed, and its server lives a moment longer: two servers on one folder would spoil it."""
    code = """
        import sys, time
        from llminfra.rag.stores import open_store
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


def test_edge_is_open_once(homes, fresh):
    store = fresh("edge", 2)
    with pytest.raises(StoreError, match="it is open already, here or in another process"):
        open_store(store.url, store.name)


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
        from llminfra.rag.stores import open_store
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
        from llminfra.rag.stores import open_store
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


def test_qdrant_requests_carry_the_settings():
    with stand_in(key="secret") as (server, url):
        with pytest.raises(StoreError, match="refuses the api_key"):
            open_store(url, "docs", 2)
        with (
            pytest.warns(UserWarning, match="insecure"),
            open_store(
                url, "docs", 2, api_key="secret", quantization="int8", payload_index=["roles"], on_disk=True, ef=64
            ) as store,
        ):
            store.upsert(*GOOD)
            store.search([1.0, 0.0], 3, {"roles": ["a", 1], "n": 2}, oversampling=2)
            store.build(m=32, quantization=None)
            assert store.index["m"] == 32
        assert {key for *_, key, _ in server.seen[1:]} == {"secret"}
        sent = {(verb, path.partition("?")[0]): body and json.loads(body) for verb, path, _, body in server.seen}
        assert all("wait=true" in path for verb, path, *_ in server.seen if verb == "PUT" and "points" in path)
        made = sent["PUT", "/collections/docs"]
        assert made["vectors"] == {"size": 2, "distance": "Cosine", "memory": "cold"}
        assert made["quantization_config"]["scalar"]["type"] == "int8" and made["hnsw_config"]["ef_construct"] == 100
        assert sent["PUT", "/collections/docs/index"] == {"field_name": "roles", "field_schema": "keyword"}
        asked = sent["POST", "/collections/docs/points/query"]
        assert asked["params"]["exact"], "the index is of words, and the filter asks for numbers too"
        assert asked["params"]["hnsw_ef"] == 64 and asked["params"]["quantization"]["oversampling"] == 2.0
        either = [{"key": "roles", "match": {"any": ["a"]}}, {"key": "roles", "match": {"any": [1]}}]
        assert asked["filter"] == {"must": [{"should": either}, {"key": "n", "match": {"any": [2]}}]}
        changed = sent["PATCH", "/collections/docs"]
        assert changed["quantization_config"] == "Disabled" and changed["hnsw_config"]["m"] == 32
        assert changed["optimizers_config"] == {"indexing_threshold": 1}


def test_a_qdrant_server_that_is_not_there_is_an_error():
    with stand_in() as (_, url):
        store = open_store(url, "docs", 2)
    httpx.Client().close()
    with pytest.raises(StoreError, match="the Qdrant server is gone or does not answer"):
        store.count()
    store.close()
    with pytest.raises(StoreError, match="is the URL right, and does it run"):
        open_store(url, "docs", 2, timeout_s=1)


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


def test_terms_tell_apart_what_differs():
    values = [1, -1, "1", "1.0", "a", "A", "é", "e\u0301", "x" * 99, "x" * 100, 'a"', "#", ""]
    words = [filters.term(field, value) for field in ("a", "b") for value in values]
    assert len(set(words)) == len(words) and all(len(word) < 80 for word in words)
    assert filters.terms({"a": [1, 1, True, None, 0.5, "x"], "b": []}) == ['a="x"', "a=1"]
