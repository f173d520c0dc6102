"""Chroma, as a server of our own on 127.0.0.1: HNSW in memory, payloads and a log of what was written in SQLite.

The graph grows with every batch, so `build` has nothing to do; of the index settings it can change `ef` alone, for Chroma
fixes the others when a collection is made (its client drops a change without a word), and reads a new `ef` only when the
collection is opened the next time. Chroma calls m `max_neighbors`, and `ef`
is of the collection, not of a search. It has no quantization. Threads are Chroma's to choose: it takes `num_threads` and keeps
no note of it.

A payload is kept as JSON beside a list of words, and filters ask that list (`$contains`); Chroma finds what matches before it
ranks. A batch is at most 5,461 vectors, and one transaction: a server killed while it writes has all of it or nothing. One
server holds all collections of a folder, so a snapshot holds them all too, and the server stops while it is copied: whatever
is asked of any of its stores meanwhile waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import chromadb
import httpx
import numpy as np
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import NotFoundError
from numpy.typing import NDArray

from llminfra.errors import StoreError, first_line
from llminfra.process import free_port
from llminfra.stores import files
from llminfra.stores.address import Address, folder_of
from llminfra.stores.base import Hit, Store
from llminfra.stores.filters import Word, term, terms
from llminfra.stores.servers import LocalServer, acquire, release
from llminfra.stores.settings import Settings, defaults

SPACES = {"cosine": "cosine", "dot": "ip", "euclid": "l2"}
ALWAYS = "any"
"""A word that every payload has, so that there always is a list: Chroma takes no empty one, and an upsert without it would
leave the old list in force, with roles that were taken away."""

_CONNECTING = threading.Lock()
"""One client a server; and the environment, which making it changes for a moment, belongs to all threads."""

_TIMEOUT_S: ContextVar[float | None] = ContextVar("timeout_s", default=None)


def _limit(request: httpx.Request) -> None:
    """Give a request the time of the store that sends it: the client is of all stores, and would wait for ever."""
    request.extensions["timeout"] = httpx.Timeout(_TIMEOUT_S.get()).as_dict()


class ChromaServer(LocalServer):
    """A Chroma server on a folder, and the client that talks to it."""

    KIND: ClassVar[str] = "chroma"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.port = free_port()
        self.client: Any = None

    def command(self) -> list[str]:
        """Return the command of the server: what `chroma run` does, without the script."""
        run = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(sys.argv)"
        place = ["--path", str(self.data), "--host", "127.0.0.1", "--port", str(self.port)]
        return [sys.executable, "-c", run, "run", *place]

    def environment(self) -> Mapping[str, str]:
        """Return the server's environment: it logs several lines for each request unless told not to."""
        return {**os.environ, "RUST_LOG": "error", "ANONYMIZED_TELEMETRY": "False"}

    def ready(self) -> bool:
        """Return whether the server answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/api/v2/heartbeat", trust_env=False, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def connect(self) -> Any:
        """Return the client of all stores of this server. It outlasts a pause, since the port stays the same."""
        with _CONNECTING:
            if self.client is None:
                with _straight():
                    settings = ChromaSettings(anonymized_telemetry=False)
                    self.client = chromadb.HttpClient("127.0.0.1", self.port, settings=settings)
                self.client._server._session.event_hooks = {"request": [_limit]}
        return self.client

    @contextlib.contextmanager
    def asked(self, timeout_s: float) -> Iterator[None]:
        """Wait until the server may be asked, and then at most this long for each answer."""
        with self.in_use():
            before = _TIMEOUT_S.set(timeout_s)
            try:
                yield
            finally:
                _TIMEOUT_S.reset(before)

    def let_go(self) -> None:
        """Close the client and its connections."""
        if self.client is not None:
            sessions = [one._server._session for one in (self.client, self.client._admin_client)]
            self.client.close()
            for session in sessions:  # which its close leaves open
                session.close()
            self.client = None


class ChromaStore(Store):
    """A collection of a Chroma server."""

    ENGINE: ClassVar[str] = "chroma"
    INDEX: ClassVar[Settings] = {
        "m": (16, range(2, 1001)),
        "ef_construct": (100, range(1, 10_001)),
        "ef": (100, range(1, 10_001)),
    }
    FAULTS = (Exception,)  # its client raises bare ones too

    def __init__(self, server: ChromaServer, collection: Any, largest: int, timeout_s: float, *rest: Any):
        super().__init__(*rest)
        self._server, self._collection, self._largest, self._timeout_s = server, collection, largest, timeout_s

    @property
    def server_pid(self) -> int:
        """The process id of the server."""
        with self._server.in_use():
            return self._server.pid

    def _ask(self, call: str, *given: Any, **named: Any) -> Any:
        """Call a method of the collection, once the server may be asked."""
        with self._server.asked(self._timeout_s):
            return getattr(self._collection, call)(*given, **named)

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        if len(ids) > self._largest:
            raise StoreError(f"a batch of {len(ids)}; Chroma takes {self._largest} at once: give it in parts")
        written = [
            {"payload": json.dumps(payload, ensure_ascii=False), "terms": [ALWAYS, *terms(payload)]}
            for payload in payloads
        ]
        self._ask("upsert", list(map(str, ids)), embeddings=vectors, metadatas=written)

    def _delete(self, ids: list[int]) -> None:
        self._ask("delete", ids=list(map(str, ids)))

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        found = self._ask(
            "query",
            query_embeddings=[vector],
            n_results=limit,
            where=_where(conditions),
            include=["metadatas", "distances"],
        )
        rows = zip(found["ids"][0], found["distances"][0], found["metadatas"][0], strict=True)
        return [
            Hit(int(number), self._score(distance), json.loads(beside["payload"])) for number, distance, beside in rows
        ]

    def _score(self, distance: float) -> float:
        """Return a score for what Chroma calls a distance: 1 - cosine, 1 - dot product, or the distance's square."""
        return -float(np.sqrt(distance)) if self.distance == "euclid" else 1 - distance

    def _count(self) -> int:
        return int(self._ask("count"))

    def _ids(self) -> set[int]:
        return set(map(int, self._ask("get", include=[])["ids"]))

    def _contents(self) -> dict[int, dict[str, Any]]:
        found = self._ask("get", include=["metadatas"])
        rows = zip(found["ids"], found["metadatas"], strict=True)
        return {int(number): json.loads(beside["payload"]) for number, beside in rows}

    def _build(self, index: dict[str, Any]) -> None:
        for name, value in index.items():
            if name != "ef" and value != self.index[name]:
                raise StoreError(f"Chroma cannot change {name} of a collection; make another with {name}={value!r}")
        if index != self.index:
            metadata = {**self._collection.metadata, "index": json.dumps(index)}
            self._ask("modify", metadata=metadata, configuration={"hnsw": {"ef_search": index["ef"]}})

    def _snapshot(self, folder: Path) -> None:
        with self._server.paused():
            files.copy(self._server.data, folder / self.name)

    def _memory(self) -> int:
        with self._server.in_use():
            return self._server.memory_bytes()

    def _disk(self) -> dict[str, int]:
        return files.allocated(
            self._server.data, lambda file: "sqlite" if "sqlite" in file.name else "vectors and graph"
        )

    def _close(self) -> None:
        release(self._server)

    def _explain(self, error: Exception) -> str:
        return _said(error)


def _said(error: Exception) -> str:
    if isinstance(error, httpx.HTTPError):
        return f"the Chroma server is gone or does not answer ({first_line(error)}); close the store and open it again"
    return f"chroma says: {first_line(error)}"


def _where(conditions: dict[str, list[Word]]) -> dict[str, Any] | None:
    """Return a filter in Chroma's words."""
    fields = [
        [{"terms": {"$contains": term(field, value)}} for value in values] for field, values in conditions.items()
    ]
    parts = [one[0] if len(one) == 1 else {"$or": one} for one in fields]
    return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None


@contextlib.contextmanager
def _straight() -> Iterator[None]:
    """Keep a proxy that the environment names from coming between us and 127.0.0.1."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = ",".join(filter(None, (before or os.environ.get("NO_PROXY"), "127.0.0.1")))
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def open_collection(
    address: Address,
    place: str,
    *,
    create: bool,
    index: dict[str, Any],
    search: dict[str, Any],
    timeout_s: float,
    **_: Any,
) -> Store:
    """Start the folder's server if it does not run, and open the collection or make it."""
    server = acquire(ChromaServer, folder_of(address, place), create)
    with contextlib.ExitStack() as undo:
        undo.callback(release, server)
        try:
            with server.asked(timeout_s):
                client = server.connect()
                collection = _found_or_made(client, address, create, index)
                largest = client.get_max_batch_size()
            record = collection.metadata or {}
            if "index" not in record:
                raise StoreError(f"{address}: another program made it; take another name")
            shape = address.agreed(record["dimensions"], record["distance"])
            settings = address.settled(json.loads(record["index"]), index)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{address}: cannot be opened: {_said(error)}") from error
        store = ChromaStore(server, collection, largest, timeout_s, address, *shape, settings, search)
        undo.pop_all()
        return store


def _found_or_made(client: Any, address: Address, create: bool, index: dict[str, Any]) -> Any:
    """Return a collection, made if it is not there and may be. Raises StoreError, or what Chroma's client raises."""
    try:
        return client.get_collection(address.name, embedding_function=None)
    except NotFoundError:
        if not create:
            raise address.absent() from None
        return _make(client, address, {**defaults(ChromaStore.INDEX), **index})


def _make(client: Any, address: Address, index: dict[str, Any]) -> Any:
    dimensions, distance = address.needed()
    graph = {"max_neighbors": index["m"], "ef_construction": index["ef_construct"], "ef_search": index["ef"]}
    return client.get_or_create_collection(  # another thread may have been faster
        address.name,
        metadata={"dimensions": dimensions, "distance": distance, "index": json.dumps(index)},
        configuration={"hnsw": {"space": SPACES[distance], **graph}},
        embedding_function=None,  # the default would fetch a model
    )


def restore(address: Address, place: str, folder: Path, *, timeout_s: float, **_: Any) -> Store:
    """Copy a snapshot, with all collections that it holds, to where the URL points, and open the one that was named."""
    target = folder_of(address, place) / "data"
    if target.exists():
        raise StoreError(f"{address}: it exists; a snapshot of Chroma holds a whole server: restore to another folder")
    with files.new_folder(target) as fresh:
        files.copy(folder / address.name, fresh)
    return open_collection(address, place, create=False, index={}, search={}, timeout_s=timeout_s)
