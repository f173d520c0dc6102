"""What the tests of stores share: which engines there are, and vectors to put into them."""

from collections import Counter

import numpy as np
import pytest

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

GOOD = ([1, 2], [[1.0, 0.0], [0.0, 1.0]], [{}, {}])
"""A batch: ids, vectors and payloads."""


def clustered(count, dimensions, seed=0):
    """Vectors in ten clusters: near ones are near, as in text."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, dimensions))
    return (centres[rng.integers(10, size=count)] + 0.4 * rng.normal(size=(count, dimensions))).astype(np.float32)


def numbered(count):
    return [{"number": number} for number in range(count)]


def assert_same(found, wanted):
    """The same vectors with the same scores; those of one score may stand in any order."""
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=2e-4, rel=1e-4)
    scores = [round(hit.score, 3) for hit in wanted]
    clear = [hit.id for hit, score in zip(wanted, scores, strict=True) if Counter(scores)[score] == 1]
    assert set(clear[:-1]) <= {hit.id for hit in found}
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
