"""Exact neighbours, recall, HNSW's search in the open against faiss's own, and sizes against what faiss writes."""

import numpy as np
import pytest

from llminfra import embed
from llminfra.stores import ann

faiss = pytest.importorskip("faiss")


def clustered(count, dimensions=32, seed=0):
    """Unit vectors around 20 centres: neighbours that are neighbours for a reason."""
    drawn = np.random.default_rng(seed)
    centres = drawn.normal(size=(20, dimensions))
    return embed.unit(centres[drawn.integers(0, 20, count)] + 0.5 * drawn.normal(size=(count, dimensions)))


@pytest.fixture(scope="module")
def space():
    vectors, queries = clustered(2000), clustered(40, seed=1)
    index = faiss.IndexHNSWFlat(32, 8, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 60
    faiss.omp_set_num_threads(1)
    index.add(vectors)
    return vectors, queries, index


def test_the_nearest_are_those_with_the_largest_products(space):
    vectors, queries, _ = space
    for query, rows in zip(queries, ann.nearest(vectors, queries, 5), strict=True):
        products = vectors @ query
        assert products[rows].tolist() == sorted(products, reverse=True)[:5]


def test_equal_ones_come_in_the_order_of_their_rows():
    vectors = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    assert ann.nearest(vectors, vectors[1:2], 3).tolist() == [[1, 2, 3]]


def test_only_what_is_allowed_is_returned(space):
    vectors, queries, _ = space
    allowed = np.arange(len(vectors)) % 50 == 7
    rows = ann.nearest(vectors, queries, 10, allowed)
    assert allowed[rows].all()
    with pytest.raises(ValueError, match="10 of 3 rows"):
        ann.nearest(vectors[:3], queries)


def test_recall_counts_what_is_missing():
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert ann.recall([[4, 3, 2, 1], [5, 6, 7, 8]], truth) == 1
    assert ann.recall([[1, 2], []], truth) == 0.25
    assert ann.recall([[1, 2, 9, 10], [5, 11, 12, 13]], truth) == 3 / 8
    with pytest.raises(ValueError, match="1 answers to 2 queries"):
        ann.recall([[1]], truth)
    with pytest.raises(ValueError, match="no queries"):
        ann.recall([], truth[:0])


def test_each_query_is_asked_so_many_times_and_one_more_ahead():
    asked = []
    queries, truth = np.eye(3, dtype=np.float32), np.array([[0], [1], [2]])

    def search(query):
        asked.append(int(query.argmax()))
        return [int(query.argmax())]

    measured = ann.measure(search, queries, truth, times=2)
    assert asked == [0, 0, 1, 2, 0, 1, 2]
    assert measured.recall == 1 and measured.found == [[0], [1], [2]]
    assert 0 < measured.p50_ms <= measured.p95_ms


def test_the_graph_is_the_one_in_the_index(space):
    _, _, index = space
    graph = ann.graph(index)
    assert graph.levels.max() == graph.top + 1
    assert graph.levels[graph.entry] == graph.top + 1
    for node in range(0, 2000, 97):
        assert 0 < len(graph.links(node, 0)) <= 16
        for level in range(1, graph.levels[node]):
            assert len(graph.links(node, level)) <= 8
            assert (graph.levels[graph.links(node, level)] > level).all(), "a link stays on its level"


@pytest.mark.parametrize("ef", [10, 40, 160])
def test_the_search_in_the_open_finds_what_the_library_finds(space, ef):
    vectors, queries, index = space
    graph = ann.graph(index)
    index.hnsw.efSearch = ef
    _, theirs = index.search(queries, 10)
    ours = [ann.walk(vectors, graph, query, ef)[0] for query in queries]
    assert ann.recall(ours, theirs) > 0.97


def test_a_wider_search_compares_more_and_finds_more(space):
    vectors, queries, index = space
    graph, truth = ann.graph(index), ann.nearest(vectors, queries)
    results = {ef: [ann.walk(vectors, graph, query, ef) for query in queries] for ef in (10, 40, 400)}
    found = [ann.recall([rows for rows, _ in results[ef]], truth) for ef in results]
    compared = [np.mean([count for _, count in results[ef]]) for ef in results]
    assert found == sorted(found) and found[-1] > 0.99
    assert compared == sorted(compared) and compared[-1] < len(vectors)


def test_the_sizes_are_those_that_faiss_writes(space):
    vectors, _, index = space
    written = faiss.serialize_index(index).nbytes
    # Beside vectors and links it keeps for each node where its links begin (8 bytes) and on how many levels it is (4).
    predicted = ann.vectors_bytes(2000, 32) + ann.graph_bytes(2000, 8) + 2000 * 12
    assert written == pytest.approx(predicted, rel=0.01)
    scalar = faiss.IndexScalarQuantizer(32, faiss.ScalarQuantizer.QT_8bit)
    scalar.train(vectors)
    scalar.add(vectors)
    assert faiss.serialize_index(scalar).nbytes == pytest.approx(ann.vectors_bytes(2000, 32, "int8"), rel=0.01)


def test_a_capacity_has_its_parts():
    whole = ann.capacity_bytes(1e6, 384)
    assert whole == {"vectors": 1_536e6, "graph": 1e6 * (32 + 16 / 15) * 4, "originals": 0, "payload": 0}
    small = ann.capacity_bytes(1e6, 384, "binary", payload_bytes=700)
    assert small["vectors"] == 48e6 and small["originals"] == 1_536e6 and small["payload"] == 700e6
    assert ann.capacity_bytes(1e6, 384, "int8", rescored=False)["originals"] == 0
    with pytest.raises(ValueError, match="'int4': a number is kept as one of float32"):
        ann.vectors_bytes(1, 1, "int4")
    with pytest.raises(ValueError, match="m=1"):
        ann.graph_bytes(1, 1)
