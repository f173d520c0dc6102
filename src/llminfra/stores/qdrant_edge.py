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
`close` flushed does. A batch is checked whole before any of it is written. The engine itself accepts NaN, and its MatchValue
takes True for 1, so the checks of `base` and `filters` matter here.

A collection is a folder. `store.json` in it says which shard beside it holds the points, and is replaced in one step when a
rebuild has made another; any other shard is what a killed process left, and goes when the collection is opened. `lock` is
held while a store has the collection open: one at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import qdrant_edge as engine
from numpy.typing import NDArray

from llminfra.errors import StoreError, first_line
from llminfra.stores import files
from llminfra.stores.address import Address, folder_of
from llminfra.stores.base import Hit, Store
from llminfra.stores.filters import Word, asks_numbers
from llminfra.stores.qdrant_common import INDEX, SEARCH, qdrant_filter
from llminfra.stores.settings import Settings, defaults

DISTANCES = {"cosine": engine.Distance.Cosine, "dot": engine.Distance.Dot, "euclid": engine.Distance.Euclid}
RECORD = "store.json"
LOCK = "lock"
SHARD = "shard-"
BATCH = 1000
"""How many points are copied at a time when a collection is rebuilt."""


class EdgeStore(Store):
    """A shard of Qdrant Edge in a folder."""

    ENGINE: ClassVar[str] = "edge"
    INDEX: ClassVar[Settings] = {**INDEX, "wal_enabled": (True, bool)}
    SEARCH: ClassVar[Settings] = SEARCH
    FAULTS = (Exception,)  # the engine raises nothing more special

    def __init__(self, folder: Path, shard: engine.EdgeShard, lock: int, *rest: Any):
        super().__init__(*rest)
        self.folder = folder
        self._shard = shard
        self._unlock = weakref.finalize(self, os.close, lock)

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
        number = int(_record(self.folder)["shard"].removeprefix(SHARD)) + 1
        shard = _make(self.folder / f"{SHARD}{number}", self.dimensions, self.distance, index)
        try:
            offset = None
            while True:
                request = engine.ScrollRequest(offset=offset, limit=BATCH, with_payload=True, with_vector=True)
                found, offset = self._shard.scroll(request)
                points = [engine.Point(one.id, one.vector, one.payload or {}) for one in found]  # type: ignore[arg-type]
                if points:
                    shard.update(engine.UpdateOperation.upsert_points(points))
                if offset is None:
                    break
            shard.flush()
            _write_record(self.folder, number, self.dimensions, self.distance, index)
            shard, self._shard = self._shard, shard
        finally:
            shard.close()
            _sweep(self.folder)

    def _snapshot(self, folder: Path) -> None:
        self._shard.flush()
        files.copy(self.folder, folder / self.name)

    def _disk(self) -> dict[str, int]:
        return files.allocated(self.folder, _part)

    def _close(self) -> None:
        try:
            self._shard.flush()
            self._shard.close()
        finally:
            self._unlock()


def _record(folder: Path) -> dict[str, Any]:
    """Return what a collection was made with, and which shard holds its points."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return record


def _write_record(folder: Path, number: int, dimensions: int, distance: str, index: dict[str, Any]) -> None:
    """Say of a folder that it is a collection, and which of its shards holds the points."""
    record = {"shard": f"{SHARD}{number}", "dimensions": dimensions, "distance": distance, "index": index}
    fresh = folder / f"{RECORD}.new"
    fresh.write_text(json.dumps(record), encoding="utf-8")
    fresh.replace(folder / RECORD)


def _sweep(folder: Path) -> None:
    """Remove every shard but the one that holds the points."""
    kept = _record(folder)["shard"]
    for shard in folder.glob(f"{SHARD}[0-9]*"):
        if shard.name != kept:
            shutil.rmtree(shard)


def _unfinished(folder: Path) -> bool:
    """Return whether a folder is empty, or what is left of a collection whose making was cut off."""
    found = {place.name for place in folder.iterdir()}
    return not found or LOCK in found <= {LOCK, f"{SHARD}1", f"{RECORD}.new"}


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
    """Make an empty shard in a folder."""
    shutil.rmtree(folder, ignore_errors=True)  # what is left of one whose making was cut off
    folder.mkdir()
    shard = engine.EdgeShard.create(str(folder), _config(dimensions, distance, index))
    for field in index["payload_index"]:
        shard.update(engine.UpdateOperation.create_field_index(field, engine.PayloadSchemaType.Keyword))
    shard.flush()
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
    try:
        made = (folder / RECORD).exists()
        if not made and folder.exists() and not (folder.is_dir() and _unfinished(folder)):
            raise StoreError(f"{address}: {folder} is there and is no collection; take another folder or name")
        if not made:
            if not create:
                raise address.absent()
            address.needed()
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            lock = files.lock(folder / LOCK, 0)
            undo.callback(os.close, lock)
            if not (folder / RECORD).exists():
                settings = {**defaults(EdgeStore.INDEX), **index}
                _make(folder / f"{SHARD}1", *address.needed(), settings).close()
                _write_record(folder, 1, *address.needed(), settings)
            _sweep(folder)
            kept = _record(folder)
            kept["index"]["payload_index"] = tuple(kept["index"]["payload_index"])
            shape = address.agreed(kept["dimensions"], kept["distance"])
            settings = address.settled(kept["index"], index)
            shard = engine.EdgeShard.load(str(folder / kept["shard"]))
            undo.pop_all()
            return EdgeStore(folder, shard, lock, address, *shape, settings, search)
    except StoreError:
        raise
    except TimeoutError:
        raise StoreError(
            f"{address}: cannot be opened: it is open already, here or in another process; close it there"
        ) from None
    except Exception as error:
        raise StoreError(f"{address}: cannot be opened: {first_line(error)}") from error


def restore(address: Address, place: str, folder: Path, **_: Any) -> Store:
    """Copy a snapshot to where the URL points, and open it."""
    target = folder_of(address, place) / address.name
    if target.exists():
        raise StoreError(f"{address}: it exists; restore to another folder")
    with files.new_folder(target) as fresh:
        files.copy(folder / address.name, fresh)
    return open_collection(address, place, create=False, index={}, search=defaults(EdgeStore.SEARCH))
