"""A Qdrant server, by its URL: the same engine, settings and filters as in `qdrant_edge`, behind HTTP.

No Qdrant server can be started where this course is built, so this module has never met one: its requests are checked by the
installed client's own models, and answered in the tests by a stand-in. What differs from the embedded engine: the server
indexes by itself once a segment has 20,000 KB of vectors, and `build` lowers that limit and waits until it is done; several
processes may use a collection at once; an `api_key` belongs on https alone.

Of a collection that this module did not make it knows lengths and distance, not the settings.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from llminfra.errors import StoreError, first_line
from llminfra.stores.address import Address
from llminfra.stores.base import Hit, Store
from llminfra.stores.filters import Word, asks_numbers
from llminfra.stores.qdrant_common import INDEX, SEARCH, qdrant_filter
from llminfra.stores.settings import Settings, defaults

PORT = 6333
PAGE = 1000
BUILD_S = 3600
DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT, "euclid": models.Distance.EUCLID}
FAULTS = (ApiException, QdrantException, httpx.HTTPError, OSError)


class QdrantStore(Store):
    """A collection of a Qdrant server."""

    ENGINE: ClassVar[str] = "qdrant"
    INDEX: ClassVar[Settings] = INDEX
    SEARCH: ClassVar[Settings] = SEARCH
    FAULTS = FAULTS

    def __init__(self, client: QdrantClient, base: str, api_key: str | None, timeout_s: float, *rest: Any):
        super().__init__(*rest)
        self._client, self._base, self._timeout_s = client, base, timeout_s
        self._headers = {} if api_key is None else {"api-key": api_key}

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        points = [models.PointStruct(id=number, vector=vector, payload=payload) for number, vector, payload in rows]
        self._client.upsert(self.name, points, wait=True)

    def _delete(self, ids: list[int]) -> None:
        self._client.delete(self.name, models.PointIdsList(points=list(ids)), wait=True)

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        quantization = models.QuantizationSearchParams(
            ignore=options["ignore_quantization"], rescore=options["rescore"], oversampling=options["oversampling"]
        )
        exact = options["exact"] or asks_numbers(conditions)  # the payload index is of words
        found = self._client.query_points(
            self.name,
            query=vector.tolist(),
            query_filter=qdrant_filter(conditions, models),
            search_params=models.SearchParams(hnsw_ef=options["ef"], exact=exact, quantization=quantization),
            limit=limit,
            with_payload=True,
        )
        sign = -1 if self.distance == "euclid" else 1
        return [Hit(int(point.id), sign * point.score, point.payload or {}) for point in found.points]

    def _count(self) -> int:
        return self._client.count(self.name, exact=True).count

    def _ids(self) -> set[int]:
        return {int(row.id) for row in self._scroll(with_payload=False)}

    def _contents(self) -> dict[int, dict[str, Any]]:
        return {int(row.id): row.payload or {} for row in self._scroll(with_payload=True)}

    def _scroll(self, with_payload: bool) -> list[models.Record]:
        found: list[models.Record] = []
        offset: Any = None
        while True:
            rows, offset = self._client.scroll(self.name, limit=PAGE, offset=offset, with_payload=with_payload)
            found += rows
            if offset is None:
                return found

    def _build(self, index: dict[str, Any]) -> None:
        place = models.Memory.COLD if index["on_disk"] else models.Memory.CACHED
        self._client.update_collection(
            self.name,
            vectors_config={"": models.VectorParamsDiff(memory=place)},
            hnsw_config=_graph(index),
            quantization_config=_quantization(index) or models.Disabled.DISABLED,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
            metadata={"index": json.dumps(index)},
        )
        _index_payload(self._client, self.name, index)
        deadline = time.monotonic() + BUILD_S
        while self._client.get_collection(self.name).status != models.CollectionStatus.GREEN:
            if time.monotonic() > deadline:
                raise StoreError(f"the index was not built in {BUILD_S} s; look at the server's log")
            time.sleep(0.1)

    def _snapshot(self, folder: Path) -> None:
        made = self._client.create_snapshot(self.name, wait=True)
        if made is None:
            raise StoreError("the server made no snapshot; look at its log")
        url = f"{self._base}/collections/{self.name}/snapshots/{made.name}"
        try:
            with httpx.stream("GET", url, headers=self._headers, timeout=self._timeout_s) as answer:
                answer.raise_for_status()
                with open(folder / f"{self.name}.snapshot", "wb") as file:
                    for part in answer.iter_bytes():
                        file.write(part)
        finally:
            self._client.delete_snapshot(self.name, made.name)

    def _close(self) -> None:
        self._client.close()

    def _explain(self, error: Exception) -> str:
        return _said(error)


def _said(error: Exception) -> str:
    if isinstance(error, ResponseHandlingException | httpx.TransportError):
        return f"the Qdrant server is gone or does not answer ({first_line(error)}); is the URL right, and does it run?"
    if isinstance(error, UnexpectedResponse):
        if error.status_code in (401, 403):
            return f"the Qdrant server refuses the api_key ({error.status_code} {error.reason_phrase})"
        return f"qdrant says: {error.status_code} {error.content.decode(errors='replace')[:300]}"
    return f"qdrant says: {first_line(error)}"


def _graph(index: dict[str, Any]) -> models.HnswConfigDiff:
    return models.HnswConfigDiff(
        m=index["m"],
        ef_construct=index["ef_construct"],
        full_scan_threshold=index["full_scan_threshold"],
        max_indexing_threads=index["max_indexing_threads"],
        memory=models.Memory.COLD if index["on_disk"] else models.Memory.CACHED,
    )


def _quantization(index: dict[str, Any]) -> models.ScalarQuantization | models.BinaryQuantization | None:
    memory = models.Memory.PINNED if index["always_ram"] else None
    if index["quantization"] == "int8":
        kind = models.ScalarType.INT8
        config = models.ScalarQuantizationConfig(type=kind, quantile=index["quantile"], memory=memory)
        return models.ScalarQuantization(scalar=config)
    if index["quantization"] == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(memory=memory))
    return None


def _index_payload(client: QdrantClient, name: str, index: dict[str, Any]) -> None:
    for field in index["payload_index"]:
        client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD, wait=True)


def _connect(url: str, api_key: str | None, timeout_s: float) -> tuple[QdrantClient, str]:
    """Return a client and the URL with its port. Qdrant's is 6333, whatever the scheme. Raises StoreError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise StoreError(f"{url!r} is no URL: {error}") from None
    if not parsed.host:
        raise StoreError(f"{url!r} names no host; write http://HOST:{PORT}")
    base = str(parsed.copy_with(port=parsed.port or PORT)).rstrip("/")
    seconds = max(1, round(timeout_s))
    return QdrantClient(url=base, api_key=api_key, timeout=seconds, check_compatibility=False), base


def open_collection(
    address: Address,
    place: str,
    *,
    create: bool,
    index: dict[str, Any],
    search: dict[str, Any],
    api_key: str | None,
    timeout_s: float,
) -> Store:
    """Open the collection on the server, or make it."""
    client, base = _connect(place, api_key, timeout_s)
    with contextlib.ExitStack() as undo:
        undo.callback(client.close)
        try:
            if not client.collection_exists(address.name):
                if not create:
                    raise address.absent()
                _make(client, address, {**defaults(INDEX), **index})
            config = client.get_collection(address.name).config
        except FAULTS as error:
            raise StoreError(f"{address}: cannot be opened: {_said(error)}") from error
        vectors = config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise StoreError(f"{address}: it has vectors with names, which this course does not use; take another name")
        distance = next((name for name, known in DISTANCES.items() if known == vectors.distance), None)
        if distance is None:
            unknown = f"the distance {vectors.distance.value}"
            raise StoreError(f"{address}: it has {unknown}, which this course does not use; take another name")
        shape = address.agreed(vectors.size, distance)
        kept = json.loads((config.metadata or {}).get("index", "{}"))
        kept["payload_index"] = tuple(kept.get("payload_index", ()))
        settings = address.settled({**defaults(INDEX), **kept}, index)
        store = QdrantStore(client, base, api_key, timeout_s, address, *shape, settings, search)
        undo.pop_all()
        return store


def _make(client: QdrantClient, address: Address, index: dict[str, Any]) -> None:
    dimensions, distance = address.needed()
    place = models.Memory.COLD if index["on_disk"] else models.Memory.CACHED
    client.create_collection(
        address.name,
        vectors_config=models.VectorParams(size=dimensions, distance=DISTANCES[distance], memory=place),
        hnsw_config=_graph(index),
        quantization_config=_quantization(index),
        metadata={"index": json.dumps(index)},
    )
    _index_payload(client, address.name, index)


def restore(address: Address, place: str, folder: Path, *, api_key: str | None, timeout_s: float) -> Store:
    """Send a snapshot to the server, and open what it makes of it."""
    client, _ = _connect(place, api_key, timeout_s)
    try:
        if client.collection_exists(address.name):
            raise StoreError(f"{address}: it exists; restore to another server, or drop it first")
        with open(folder / f"{address.name}.snapshot", "rb") as file:
            client.http.snapshots_api.recover_from_uploaded_snapshot(address.name, wait=True, snapshot=file)
    except FAULTS as error:
        raise StoreError(f"{address}: cannot be restored: {_said(error)}") from error
    finally:
        client.close()
    search = defaults(SEARCH)
    return open_collection(address, place, create=False, index={}, search=search, api_key=api_key, timeout_s=timeout_s)
