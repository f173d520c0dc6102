"""Nearest neighbours: which they are, how many of them a search finds and how fast, HNSW's search in plain sight, and what an index weighs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llminfra.embed import Vectors

Rows = NDArray[np.int64]
BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}
"""Bytes of one number of a vector, by how it is kept."""
LINK_BYTES = 4
"""A link of a graph is the number of a row: 32 bits are enough for four billion."""


def nearest(vectors: Vectors, queries: Vectors, limit: int = 10, allowed: NDArray[np.bool_] | None = None) -> Rows:
    """Return the rows of `vectors` with the largest dot products, best first, for each query: (queries, limit).

    Of equal ones the smaller row comes first. `allowed` marks the rows that may be returned; raises ValueError where fewer than
    `limit` may.
    """
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    if len(rows) < limit:
        raise ValueError(f"{limit} of {len(rows)} rows are asked for")
    near = queries @ vectors[rows].T
    return rows[np.argsort(-near, axis=1, kind="stable")[:, :limit]]


def recall(found: Sequence[Sequence[int]], truth: Sequence[Sequence[int]] | Rows) -> float:
    """Return the share of the true neighbours that were found, over all queries; what is not returned counts as missed."""
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} answers to {len(truth)} queries")
    if not len(truth):
        raise ValueError("no queries: there is nothing to recall")
    met = sum(len({*map(int, one)} & {*map(int, true)}) for one, true in zip(found, truth, strict=True))
    return met / sum(map(len, truth))


@dataclass(frozen=True)
class Measured:
    """What a search found for each query, the share of the true neighbours in it, and the time of a query in milliseconds."""

    found: list[list[int]]
    recall: float
    p50_ms: float
    p95_ms: float


def measure(search: Callable[[Any], Sequence[int]], queries: Vectors, truth: Rows, times: int = 1) -> Measured:
    """Ask each query by itself, `times` over, and return what came and how long it took; `search` returns ids, best first.

    One query goes ahead unmeasured, so that no measured one pays for what is done once.
    """
    search(queries[0])
    found: list[list[int]] = []
    seconds = []
    for _ in range(times):
        found = []
        for query in queries:
            begin = time.perf_counter()
            ids = search(query)
            seconds.append(time.perf_counter() - begin)
            found.append([int(one) for one in ids])
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return Measured(found, recall(found, truth), float(p50), float(p95))


# HNSW


@dataclass(frozen=True)
class Graph:
    """The links of an HNSW index: `links(node, level)` are the neighbours of a node, level 0 at the bottom, where all nodes are.

    `entry` is the node where a search begins, at the level `top`; `levels` says for each node on how many levels it is.
    """

    entry: int
    top: int
    levels: NDArray[np.int32]
    links: Callable[[int, int], Rows]


def graph(index: Any) -> Graph:
    """Return the graph inside a faiss.IndexHNSW."""
    import faiss

    inside = index.hnsw
    neighbours, offsets = faiss.vector_to_array(inside.neighbors), faiss.vector_to_array(inside.offsets)

    def links(node: int, level: int) -> Rows:
        begin = int(offsets[node])
        held = neighbours[begin + inside.cum_nb_neighbors(level) : begin + inside.cum_nb_neighbors(level + 1)]
        return held[held >= 0].astype(np.int64)

    return Graph(int(inside.entry_point), int(inside.max_level), faiss.vector_to_array(inside.levels), links)


def walk(vectors: Vectors, graph: Graph, query: Any, ef: int = 64, limit: int = 10) -> tuple[list[int], int]:
    """Return the `limit` nearest that HNSW's search finds, and how many vectors it compared.

    Malkov and Yashunin (2018), algorithms 2 and 5: greedy on the upper levels; on the lowest
    with the `ef` best in mind.
    """
    place, near = graph.entry, float(vectors[graph.entry] @ query)
    compared = 1
    for level in range(graph.top, 0, -1):
        while True:  # step to the nearest neighbour, until none is nearer
            around = graph.links(place, level)
            values = vectors[around] @ query
            compared += len(around)
            if not len(around) or values.max() <= near:
                break
            place, near = int(around[values.argmax()]), float(values.max())
    waiting, kept, seen = [(-near, place)], [(near, place)], {place}
    while waiting:
        value, place = heappop(waiting)  # the nearest of those whose neighbours nobody has looked at
        if len(kept) == ef and -value < kept[0][0]:
            break  # it is farther than the worst of the ef best, and so is all that waits
        fresh = [int(node) for node in graph.links(place, 0) if node not in seen]
        seen.update(fresh)
        compared += len(fresh)
        for node, near in zip(fresh, map(float, vectors[fresh] @ query), strict=True):
            if len(kept) < ef or near > kept[0][0]:
                heappush(waiting, (-near, node))
                heappush(kept, (near, node))
                if len(kept) > ef:
                    heappop(kept)
    return [node for _, node in sorted(kept, reverse=True)[:limit]], compared


# Sizes


def vectors_bytes(count: float, dimensions: int, kind: str = "float32") -> float:
    """Return the bytes of `count` vectors; `kind` is one of `BYTES`."""
    if kind not in BYTES:
        raise ValueError(f"{kind!r}: a number is kept as one of {', '.join(BYTES)}")
    return count * dimensions * BYTES[kind]


def graph_bytes(count: float, m: int = 16) -> float:
    """Return the bytes of HNSW's links: 2 m places a node on the lowest level, and m on each above it.

    A node reaches level l with probability m**-l, so it is on 1 / (m - 1) upper levels on average (the same paper, section 4).
    """
    if m < 2:
        raise ValueError(f"m={m}: a graph has at least 2 links a node")
    return count * (2 * m + m / (m - 1)) * LINK_BYTES


def capacity_bytes(
    count: float,
    dimensions: int,
    kind: str = "float32",
    m: int = 16,
    payload_bytes: float = 0,
    rescored: bool = True,
) -> dict[str, float]:
    """Return the bytes of a collection by part: what a search reads (`vectors`, `graph`) and what may lie on a disk.

    Where vectors are kept in fewer bits than 32 and `rescored`, the whole ones are there too, as `originals`; `payload` is what
    is stored beside the vectors, `payload_bytes` each.
    """
    parts = {"vectors": vectors_bytes(count, dimensions, kind), "graph": graph_bytes(count, m)}
    parts["originals"] = vectors_bytes(count, dimensions) if rescored and kind != "float32" else 0.0
    parts["payload"] = count * payload_bytes
    return parts
