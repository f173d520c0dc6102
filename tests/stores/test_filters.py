"""Filters mean the same in every engine, and a store never shows what does not match."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import FILTERING, THOROUGH, assert_same, clustered

from llminfra.stores import StoreError, filters, open_store

pytestmark = pytest.mark.heavy
"""One lane, so that each server starts once."""


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


def test_terms_tell_apart_what_differs():
    values = [1, -1, "1", "1.0", "a", "A", "é", "e\u0301", "x" * 99, "x" * 100, 'a"', "#", ""]
    words = [filters.term(field, value) for field in ("a", "b") for value in values]
    assert len(set(words)) == len(words) and all(len(word) < 80 for word in words)
    assert filters.terms({"a": [1, 1, True, None, 0.5, "x"], "b": []}) == ['a="x"', "a=1"]
