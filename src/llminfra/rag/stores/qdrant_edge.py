"""Qdrant's own engine in this process: a collection is a folder, and no server runs.

New vectors are compared one by one until `build` makes the HNSW graph and quantizes: the engine does neither by itself. As in
a Qdrant server, vectors of less than `full_scan_threshold` kilobytes (of float32) are compared one by one even then: for a
small collection, give 10 to see the graph at work. `quantization` int8 takes one byte a number, binary one bit; the vectors
stay beside it, and `rescore` orders what it finds by these (`oversampling` times as many). `ef` is as `ef_construct` if not
given. `on_disk` reads vectors and graph from there as needed.

`payload_index` names the fields that filters ask for; `roles` is one unless others are named. Without it a filter still never
shows what does not match, but over the graph it misses most of what does (measured: 5,000 vectors, of which a tenth match, a
sixth of the right ones found; with it, all): the graph then has no paths from one match to the next. That index is of words:
a filter that asks for whole numbers is answered by comparing one by one.

What is acknowledged is in a log that outlives this process (`wal_enabled`), without which only what `build`, `snapshot` or
`close` flushed does. One process at a time: the log is locked. A batch is checked whole before any of it is written. The
engine itself accepts NaN, and its MatchValue takes True for 1, so the checks of `base` and `filters` matter here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import qdrant_edge as engine
from numpy.typing import NDArray

from llminfra.rag.stores.address import Address, folder_of
from llminfra.rag.stores.base import Hit, Store
from llminfra.rag.stores.errors import Settings, StoreError, defaults, first_line
from llminfra.rag.stores.files import allocated, copy
from llminfra.rag.stores.filters import Word, asks_numbers
from llminfra.rag.stores.qdrant_filter import qdrant_filter

DISTANCES = {"cosine": engine.Distance.Cosine, "dot": engine.Distance.Dot, "euclid": engine.Distance.Euclid}
BATCH = 1000
"""How many points are copied at a time when a collection is rebuilt."""


class EdgeStore(Store):
    """A shard of Qdrant Edge in a folder."""

    ENGINE: ClassVar[str] = "edge"
    INDEX: ClassVar[Settings] = {
        "m": (16, range(0, 1001)),
        "ef_construct": (100, range(4, 10_001)),
        "full_scan_threshold": (10_000, range(0, 2**31)),
        "max_indexing_threads": (0, range(0, 257)),
        "quantization": (None, (None, "int8", "binary")),
        "quantile": (None, float),
        "always_ram": (True, bool),
        "on_disk": (False, bool),
        "payload_index": (("roles",), tuple),
        "wal_enabled": (True, bool),
    }
    SEARCH: ClassVar[Settings] = {
        "ef": (None, range(1, 100_001)),
        "exact": (False, bool),
        "rescore": (None, bool),
        "oversampling": (None, float),
        "ignore_quantization": (False, bool),
    }
    FAULTS = (Exception,)  # the engine raises nothing more special

    def __init__(self, folder: Path, shard: engine.EdgeShard, *rest: Any):
        super().__init__(*rest)
        self.folder = folder
        self._shard = shard

    def indexed(self) -> int:
        """Return how many vectors are in an index; the rest is compared one by one."""
        with self._using():
            return int(self._shard.info().indexed_vectors_count)

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        points = [engine.Point(*one) for one in zip(ids, vectors.tolist(), payloads, strict=True)]
        self._shard.update(engine.UpdateOperation.upsert_points(points))

    def _delete(self, ids: list[int]) -> None:
        self._shard.update(engine.UpdateOperation.delete_points([*ids]))

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        quantization = engine.QuantizationSearchParams(
            options["ignore_quantization"], options["rescore"], options["oversampling"]
        )
        exact = options["exact"] or asks_numbers(conditions)
        request = engine.QueryRequest(
            limit=limit,
            query=engine.Query.Nearest(vector.tolist()),
            filter=qdrant_filter(conditions, engine),
            params=engine.SearchParams(hnsw_ef=options["ef"], exact=exact, quantization=quantization),
            with_payload=True,
        )
        sign = -1 if self.distance == "euclid" else 1
        return [Hit(int(point.id), sign * point.score, point.payload or {}) for point in self._shard.query(request)]

    def _count(self) -> int:
        return self._shard.count(engine.CountRequest())

    def _ids(self) -> set[int]:
        return {int(point.id) for point in self._scroll(with_payload=False)}

    def _contents(self) -> dict[int, dict[str, Any]]:
        return {int(point.id): point.payload or {} for point in self._scroll(with_payload=True)}

    def _scroll(self, with_payload: bool) -> list[engine.Record]:
        request = engine.ScrollRequest(limit=max(1, self._count()), with_payload=with_payload, with_vector=False)
        return self._shard.scroll(request)[0]

    def _build(self, index: dict[str, Any]) -> None:
        if index != self.index:
            self._rewrite(index)
        self._shard.optimize()
        self._shard.flush()

    def _rewrite(self, index: dict[str, Any]) -> None:
        """Copy all points to a new shard with other settings, then put it in this one's place.

        Loading the shard with other settings is not the same: it takes a setting that is None for one to be kept, and parts of
        the old index stay (measured: quantization cannot be taken away).
        """
        fresh, old = _beside(self.folder, "new"), _beside(self.folder, "old")
        shard = _make(fresh, self.dimensions, self.distance, index)
        offset = None
        while True:
            request = engine.ScrollRequest(offset=offset, limit=BATCH, with_payload=True, with_vector=True)
            found, offset = self._shard.scroll(request)
            points = [engine.Point(one.id, one.vector, one.payload or {}) for one in found]  # type: ignore[arg-type]
            if points:
                shard.update(engine.UpdateOperation.upsert_points(points))
            if offset is None:
                break
        shard.close()
        self._shard.close()
        self.folder.rename(old)
        fresh.rename(self.folder)
        shutil.rmtree(old)
        self._shard = engine.EdgeShard.load(str(self.folder / "shard"))

    def _snapshot(self, folder: Path) -> None:
        self._shard.flush()
        copy(self.folder, folder / self.name)

    def _disk(self) -> dict[str, int]:
        return allocated(self.folder, _part)

    def _close(self) -> None:
        self._shard.flush()
        self._shard.close()


def _beside(folder: Path, what: str) -> Path:
    """Return where a collection stands while it is being replaced."""
    return folder.with_name(f".{folder.name}.llminfra-{what}")


def _part(file: Path) -> str:
    """Return what a file below a collection's folder holds."""
    if "wal" in file.parts:
        return "log"
    if file.name.startswith("quantized"):
        return "quantized vectors"
    kind = file.parts[3] if len(file.parts) > 4 and file.parts[1] == "segments" else ""
    names = {"vector_storage": "vectors", "vector_index": "graph", "payload_storage": "payloads"}
    return names.get(kind, "payload index" if kind == "payload_index" else "other")


def _make(folder: Path, dimensions: int, distance: str, index: dict[str, Any]) -> engine.EdgeShard:
    """Make a shard below a folder, with a record of what it was made with."""
    shutil.rmtree(folder, ignore_errors=True)  # what is left of one whose making was cut off
    (folder / "shard").mkdir(parents=True)
    shard = engine.EdgeShard.create(str(folder / "shard"), _config(dimensions, distance, index))
    for field in index["payload_index"]:
        shard.update(engine.UpdateOperation.create_field_index(field, engine.PayloadSchemaType.Keyword))
    shard.flush()
    record = {"dimensions": dimensions, "distance": distance, "index": index}
    (folder / "store.json").write_text(json.dumps(record), encoding="utf-8")
    return shard


def _config(dimensions: int, distance: str, index: dict[str, Any]) -> engine.EdgeConfig:
    place = engine.Memory.Cold if index["on_disk"] else engine.Memory.Cached
    pinned = engine.Memory.Pinned if index["always_ram"] else None
    quantization: Any = None
    if index["quantization"] == "int8":
        quantization = engine.ScalarQuantizationConfig(
            engine.ScalarType.Int8, quantile=index["quantile"], memory=pinned
        )
    elif index["quantization"] == "binary":
        quantization = engine.BinaryQuantizationConfig(memory=pinned)
    graph = engine.HnswIndexConfig(
        m=index["m"],
        ef_construct=index["ef_construct"],
        full_scan_threshold=index["full_scan_threshold"],
        max_indexing_threads=index["max_indexing_threads"],
        memory=place,
    )
    return engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(size=dimensions, distance=DISTANCES[distance], memory=place),
        hnsw_config=graph,
        quantization_config=quantization,
        # `build` is called to index: it must not find a collection too small for that (Qdrant's own limit is 20,000 KB).
        optimizers=engine.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
        wal_enabled=index["wal_enabled"],
    )


def open_collection(
    address: Address, place: str, *, create: bool, index: dict[str, Any], search: dict[str, Any], **_: Any
) -> Store:
    """Open the collection in a folder, or make it."""
    folder = folder_of(address, place) / address.name
    old, record = _beside(folder, "old"), folder / "store.json"
    try:
        if old.exists() and not folder.exists():
            old.rename(folder)  # a rebuild was cut off between its last steps
        if folder.exists() and not record.exists():
            raise StoreError(f"{address}: {folder} is there and is no collection; take another folder or name")
        if not folder.exists():
            if not create:
                raise address.absent()
            dimensions, distance = address.needed()
            _make(_beside(folder, "new"), dimensions, distance, {**defaults(EdgeStore.INDEX), **index}).close()
            _beside(folder, "new").rename(folder)
        kept = json.loads(record.read_text(encoding="utf-8"))
        kept["index"]["payload_index"] = tuple(kept["index"]["payload_index"])
        shape, settings = address.agreed(kept["dimensions"], kept["distance"]), address.settled(kept["index"], index)
        return EdgeStore(folder, engine.EdgeShard.load(str(folder / "shard")), address, *shape, settings, search)
    except StoreError:
        raise
    except Exception as error:
        said = "it is open already, here or in another process" if "WouldBlock" in str(error) else first_line(error)
        raise StoreError(f"{address}: cannot be opened: {said}") from error


def restore(address: Address, place: str, folder: Path, **_: Any) -> Store:
    """Copy a snapshot to where the URL points, and open it."""
    target = folder_of(address, place) / address.name
    if target.exists():
        raise StoreError(f"{address}: it exists; restore to another folder")
    copy(folder / address.name, target)
    return open_collection(address, place, create=False, index={}, search=defaults(EdgeStore.SEARCH))
