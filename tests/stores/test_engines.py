"""What is particular to one engine: its indexes, its settings, and the reasons for what its module does."""

import contextlib
import json

import httpx
import numpy as np
import psutil
import pytest
from qdrant_client import models
from samples import GOOD, clustered, numbered
from stand_in import stand_in

from llminfra.stores import StoreError, open_store

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""


def test_why_chroma_is_always_given_a_list_of_words(fresh):
    """An upsert that does not name a field leaves the old one: a document whose roles were taken away would keep them."""
    collection = fresh("chroma", 2)._collection
    for metadata in ({"roles": ["board"], "n": 1}, {"n": 2}):
        collection.upsert(["1"], embeddings=[[1.0, 2.0]], metadatas=[metadata])
    assert collection.get(where={"roles": {"$contains": "board"}})["metadatas"] == [{"roles": ["board"], "n": 2}]


def test_postgres_builds_each_of_its_indexes(fresh):
    vectors = clustered(400, 64)
    store, exact = fresh("postgres", 64), fresh("exact", 64)
    for one in (store, exact):
        one.upsert(range(400), vectors, numbered(400))
    name, sizes = f"{store.name}.vectors", {}
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
        sizes[kind] = store.disk_parts().get("index of vectors", 0)
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
    store._sql.execute(f'DROP INDEX "{store.name}.terms"')  # or PostgreSQL finds the twenty there, and sorts them
    given_ = {"where": {"roles": "rare"}, "exact": False, "ef": 40}
    assert len(store.search(vectors[0], 10, **given_, iterative_scan="off")) < 10
    assert len(store.search(vectors[0], 10, **given_, max_scan_tuples=100)) < 10
    assert len(store.search(vectors[0], 10, **given_)) == 10
    relaxed = store.search(vectors[0], 10, **given_, iterative_scan="relaxed_order")
    assert len(relaxed) == 10 and all(hit.payload == {"roles": "rare"} for hit in relaxed)


def test_collections_of_postgres_may_be_called_as_its_indexes_once_were(homes):
    names = ["names_terms", "names", "names_vectors", "names_pkey", "names_id"]
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(open_store(homes["postgres"], name, 2)) for name in names]
        for number, store in enumerate(stores):
            store.upsert([number], [[1.0, 0.0]], [{}])
            store.build(m=8)
        assert [store.ids() for store in stores] == [{number} for number in range(len(names))]
        assert set(stores[1].disk_parts()) == {
            "table",
            "beside the table",
            "index of id",
            "index of terms",
            "index of vectors",
        }


def test_a_table_of_postgres_with_the_index_names_of_an_earlier_version_still_serves(homes):
    with open_store(homes["postgres"], "earlier", 2) as store:
        store.upsert(*GOOD)
        for part in ("terms", "vectors"):
            store._sql.execute(f'ALTER INDEX "earlier.{part}" RENAME TO earlier_{part}')
    with open_store(homes["postgres"], "earlier") as store:
        store.build(m=8)
        assert store.search([1.0, 0.0], 1, exact=False)[0].id == 1
    with pytest.raises(StoreError, match="that is no store; take another name"):
        open_store(homes["postgres"], "earlier_vectors", 2)


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


def test_a_qdrant_collection_with_a_distance_of_its_own_is_refused():
    with stand_in() as (server, url):
        server.client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.MANHATTAN))
        with pytest.raises(StoreError, match="it has the distance Manhattan, which this course does not use"):
            open_store(url, "docs")


def test_a_qdrant_server_that_is_not_there_is_an_error():
    with stand_in() as (_, url):
        store = open_store(url, "docs", 2)
    httpx.Client().close()
    with pytest.raises(StoreError, match="the Qdrant server is gone or does not answer"):
        store.count()
    store.close()
    with pytest.raises(StoreError, match="is the URL right, and does it run"):
        open_store(url, "docs", 2, timeout_s=1)
