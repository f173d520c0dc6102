"""faiss in the process: what an index costs and misses, without a database around it.

`index` is flat (all compared), ivf (`nlist` lists, of which `nprobe` are searched), pq (`pq_m` codes of 8 bits a vector), ivfpq
(both), hnsw (`m`, `ef_construct`, `ef`), or sq8 (one byte a number). `build` trains it and puts in it what is there; after a change
the next search builds it anew. There are no filters: a search with `where` is refused. `memory_bytes` is the size of the index
as faiss writes it; the vectors themselves are kept beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from llminfra.errors import StoreError
from llminfra.stores.address import Address
from llminfra.stores.base import Hit, Store
from llminfra.stores.exact import ExactStore, load_snapshot
from llminfra.stores.filters import Word
from llminfra.stores.settings import Settings, defaults

library: Any = faiss
"""faiss without the types of its stubs, which lack the parameters of a search."""


class FaissStore(ExactStore):
    """An index of faiss over vectors in memory."""

    ENGINE: ClassVar[str] = "faiss"
    INDEX: ClassVar[Settings] = {
        "index": ("hnsw", ("flat", "ivf", "pq", "ivfpq", "hnsw", "sq8")),
        "m": (16, range(2, 1001)),
        "ef_construct": (100, range(1, 10_001)),
        "nlist": (64, range(1, 65537)),
        "pq_m": (16, range(1, 4097)),
    }
    SEARCH: ClassVar[Settings] = {"ef": (64, range(1, 10_001)), "nprobe": (8, range(1, 65537))}
    FAULTS = (RuntimeError, OSError)

    def __init__(self, *given: Any):
        super().__init__(*given)
        self._index: Any = None
        """The index, None while it is older than the vectors."""
        self._places: list[int] = []

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        super()._upsert(ids, vectors, payloads)
        self._index = None

    def _delete(self, ids: list[int]) -> None:
        super()._delete(ids)
        self._index = None

    def _build(self, index: dict[str, Any]) -> None:
        places, matrix = self.stacked()
        if not len(places):
            return
        made: Any = faiss.index_factory(self.dimensions, _recipe(index), _metric(self.distance))
        if index["index"] == "hnsw":
            made.hnsw.efConstruction = index["ef_construct"]
        trained: list[Any] = [part for part in (made, getattr(made, "pq", None)) if hasattr(part, "cp")]
        for part in trained:  # or it warns, past Python, of fewer than 39 vectors a centroid
            part.cp.min_points_per_centroid = 1
        made.train(matrix)
        made.add(matrix)
        self._index, self._places = made, places.tolist()

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        if conditions:
            raise StoreError("faiss knows no payloads, so it cannot filter; take edge:, chroma: or postgres:")
        if self._index is None:
            self._build(self.index)
        if not self.rows:
            return []
        query = vector[None].copy()
        if self.distance == "cosine":
            faiss.normalize_L2(query)
        parameters: Any = None
        if self.index["index"] == "hnsw":
            parameters = library.SearchParametersHNSW(efSearch=options["ef"])
        elif self.index["index"].startswith("ivf"):
            parameters = library.SearchParametersIVF(nprobe=options["nprobe"])
        near, places = self._index.search(query, min(limit, len(self.rows)), params=parameters)
        found = [(place, value) for place, value in zip(places[0], near[0], strict=True) if place >= 0]
        # For euclid faiss gives the square, which rounding may take a little below 0.
        scores = [-float(np.sqrt(max(value, 0))) if self.distance == "euclid" else value for _, value in found]
        numbers = [self._places[place] for place, _ in found]
        return [Hit(number, float(score), self.payload(number)) for number, score in zip(numbers, scores, strict=True)]

    def _memory(self) -> int:
        if self._index is None:
            self._build(self.index)
        return 0 if self._index is None else int(faiss.serialize_index(self._index).nbytes)


def _recipe(index: dict[str, Any]) -> str:
    """Return an index in faiss's own notation."""
    # "np": without polysemous training, which takes a hundred times as long and serves searches that are not made here.
    lists, codes = f"IVF{index['nlist']}", f"PQ{index['pq_m']}np"
    names = {"flat": "Flat", "ivf": f"{lists},Flat", "pq": codes, "ivfpq": f"{lists},{codes}", "sq8": "SQ8"}
    return names.get(index["index"], f"HNSW{index['m']},Flat")


def _metric(distance: str) -> int:
    return int(faiss.METRIC_L2 if distance == "euclid" else faiss.METRIC_INNER_PRODUCT)


def open_collection(
    address: Address, place: str, *, create: bool, index: dict[str, Any], search: dict[str, Any], **_: Any
) -> Store:
    """Return a new, empty store."""
    if place:
        raise StoreError(f"{address}: it keeps nothing on disk; write faiss:")
    if not create:
        raise address.absent()
    settings = {**defaults(FaissStore.INDEX), **index}
    dimensions, distance = address.needed()
    if settings["index"] in ("pq", "ivfpq") and dimensions % settings["pq_m"]:
        raise StoreError(
            f"{address}: pq_m={settings['pq_m']} does not divide {dimensions} dimensions; take one that does"
        )
    return FaissStore(address, dimensions, distance, settings, search)


def restore(address: Address, place: str, folder: Path, **_: Any) -> Store:
    """Return a store with what a snapshot holds; the index is built anew."""
    return load_snapshot(address, place, folder, open_collection, defaults(FaissStore.SEARCH))
