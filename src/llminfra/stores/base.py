"""What every vector store does alike: check what comes in, say plainly what is wrong, and hand the rest to its engine.

A filter is exact and comes before ranking: of the vectors that match it, the nearest are returned. A store never shows what
does not match, which is what access control in retrieval rests on.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llminfra.errors import StoreError, first_line
from llminfra.stores import files
from llminfra.stores.address import Address
from llminfra.stores.filters import Where, Word, check_payload, clauses
from llminfra.stores.settings import Settings, checked

LARGEST_ID = 2**63 - 1
LARGEST_LIMIT = 2**31 - 1
MANIFEST = "snapshot.json"
"""The file that says of a snapshot which engine's and which collection's it is."""


@dataclass(frozen=True)
class Hit:
    """A vector found: its id, how near it is (higher is nearer) and what was stored beside it.

    `score` is the cosine or the dot product; for `euclid` it is the distance, negated.
    """

    id: int
    score: float
    payload: dict[str, Any]


class Store(ABC):
    """A collection of vectors of one length in one engine, with a payload each.

    A payload is flat: names to strings, numbers, booleans, None or lists of these. Engines differ in what settings they
    take (`INDEX`, fixed until `build` changes them; `SEARCH`, for each search, with defaults given when opened) and in what
    they do with them; the modules say it. What an engine refuses, and a server that is gone, is a StoreError. Threads may
    share a store: it serves one at a time.
    """

    ENGINE: ClassVar[str]
    INDEX: ClassVar[Settings] = {}
    SEARCH: ClassVar[Settings] = {}
    FAULTS: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """What the engine's own library raises."""

    def __init__(self, address: Address, dimensions: int, distance: str, index: dict[str, Any], search: dict[str, Any]):
        self.url, self.name = address.url, address.name
        self.dimensions, self.distance = dimensions, distance
        self.index = index
        """The index settings in force."""
        self.defaults = search
        """The search options that hold where a search gives none."""
        self.closed = False
        self._access = threading.RLock()

    def upsert(self, ids: Sequence[int], vectors: ArrayLike, payloads: Sequence[Mapping[str, Any]]) -> None:
        """Store vectors (n x dimensions), replacing those whose id is there; ids are 0 to 2**63 - 1.

        When it returns, the engine has acknowledged all of them. Raises StoreError, and then nothing of the batch was
        written if the batch itself was wrong.
        """
        with self._using():
            numbers, payloads = _ids(ids), list(payloads)
            matrix = self._matrix(vectors, "vector")
            if not len(numbers) == len(matrix) == len(payloads):
                counts = f"{len(numbers)} ids, {len(matrix)} vectors and {len(payloads)} payloads"
                raise StoreError(f"{counts}: there must be one of each; nothing was written")
            if len(set(numbers)) < len(numbers):
                twice = next(number for number in numbers if numbers.count(number) > 1)
                raise StoreError(f"id {twice} stands twice in one batch; nothing was written")
            plain = [check_payload(payload, number) for number, payload in zip(numbers, payloads, strict=True)]
            if numbers:
                self._upsert(numbers, matrix, plain)

    def delete(self, ids: Sequence[int]) -> None:
        """Remove vectors; ids that are not there are passed over."""
        with self._using():
            numbers = _ids(ids)
            if numbers:
                self._delete(numbers)

    def search(self, vector: ArrayLike, limit: int = 10, where: Where | None = None, **options: Any) -> list[Hit]:
        """Return the `limit` vectors nearest to one (of `dimensions` numbers) that match `where`, best first."""
        with self._using():
            query, conditions, given = self._asked(vector, limit, where, options)
            return [] if conditions is None else self._search(query, int(limit), conditions, given)

    def count(self) -> int:
        """Return how many vectors there are."""
        with self._using():
            return self._count()

    def ids(self) -> set[int]:
        """Return the ids of all vectors."""
        with self._using():
            return self._ids()

    def contents(self) -> dict[int, dict[str, Any]]:
        """Return the payload of each vector by its id."""
        with self._using():
            return self._contents()

    def build(self, **index: Any) -> None:
        """Index all vectors now, with other index settings if they are given (the rest stays as it is).

        Until then an engine that builds on demand searches new vectors one by one.
        """
        with self._using():
            changed = {**self.index, **checked(f"{self.ENGINE}: index", self.INDEX, index)}
            self._build(changed)
            self.index = changed

    def snapshot(self, folder: str | os.PathLike[str]) -> None:
        """Write the collection to a folder that is not there yet; `stores.restore` reads it.

        The folder is there once the snapshot is whole: a full disk, or a process that is killed, leaves nothing of that name.
        """
        place = Path(folder).expanduser()
        with self._using():
            if os.path.lexists(place):
                raise StoreError(f"snapshot to {place}: it exists; name a new folder")
            try:
                with files.new_folder(place) as fresh:
                    self._snapshot(fresh)
                    manifest = {"engine": self.ENGINE, "name": self.name}
                    (fresh / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            except OSError as error:
                raise StoreError(f"snapshot to {place}: {first_line(error)}; nothing is kept of it") from error

    def memory_bytes(self) -> int | None:
        """Return the memory that the engine holds, in bytes; None if it cannot be told from that of this process."""
        with self._using():
            return self._memory()

    def disk_parts(self) -> dict[str, int] | None:
        """Return the bytes on disk by what they hold; None if nothing is on a disk that can be seen from here."""
        with self._using():
            return self._disk()

    def disk_bytes(self) -> int | None:
        """Return the bytes on disk, all parts together."""
        parts = self.disk_parts()
        return None if parts is None else sum(parts.values())

    def close(self) -> None:
        """Let go of the collection, and stop the server if it is ours and no other store uses it. Twice is no error."""
        with self._access:
            if not self.closed:
                self.closed = True
                with self._reporting():
                    self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Serve one thread at a time, as long as the store is open."""
        with self._access, self._reporting():
            if self.closed:
                raise StoreError("the store is closed; open it again")
            yield

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Say where a StoreError happened, and turn the engine's own errors into one."""
        place = f"{self.url} {self.name!r}"
        try:
            yield
        except StoreError as error:
            raise StoreError(f"{place}: {error}") from error.__cause__
        except self.FAULTS as error:
            raise StoreError(f"{place}: {self._explain(error)}") from error

    def _asked(
        self, vector: ArrayLike, limit: int, where: Where | None, options: Mapping[str, Any]
    ) -> tuple[NDArray[np.float32], dict[str, list[Word]] | None, dict[str, Any]]:
        """Return what a search asks, checked: vector, conditions (None if nothing can match), options."""
        whole = isinstance(limit, int | np.integer) and not isinstance(limit, bool)
        if not whole or not 1 <= limit <= LARGEST_LIMIT:
            raise StoreError(f"limit {limit!r}: it must be a whole number from 1 to {LARGEST_LIMIT}")
        given = {**self.defaults, **checked(f"{self.ENGINE}: search", self.SEARCH, options)}
        return self._matrix([vector], "query")[0], clauses(where), given

    def _matrix(self, vectors: Any, what: str) -> NDArray[np.float32]:
        """Return vectors as float32, n x dimensions. Raises StoreError for any that cannot be compared."""
        ending = "" if what == "query" else "; nothing was written"
        try:
            vectors = vectors if isinstance(vectors, np.ndarray) else list(vectors)
            for number, row in enumerate(vectors):
                if list(np.shape(row)) != [self.dimensions]:
                    shape = " x ".join(map(str, np.shape(row))) or "no"
                    raise StoreError(
                        f"{what} {number} has {shape} numbers; the collection takes {self.dimensions}{ending}"
                    )
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1, self.dimensions)
                squares = np.einsum("ij,ij->i", matrix, matrix)
        except (TypeError, ValueError):
            raise StoreError(f"the {what} holds something that is no number{ending}") from None
        bad = np.flatnonzero(~np.isfinite(squares))
        if len(bad):
            raise StoreError(
                f"{what} {bad[0]} holds NaN, infinity, or more than float32 can take the square of{ending}"
            )
        zero = np.flatnonzero((squares == 0) & (self.distance == "cosine"))
        if len(zero):
            raise StoreError(f"{what} {zero[0]} is all zeros and has no direction to take a cosine of{ending}")
        return matrix

    def _explain(self, error: Exception) -> str:
        """Return what an engine's error says, in a line."""
        return f"{self.ENGINE} says: {first_line(error)}"

    def _memory(self) -> int | None:
        return None

    def _disk(self) -> dict[str, int] | None:
        return None

    @abstractmethod
    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None: ...

    @abstractmethod
    def _delete(self, ids: list[int]) -> None: ...

    @abstractmethod
    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]: ...

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _ids(self) -> set[int]: ...

    @abstractmethod
    def _contents(self) -> dict[int, dict[str, Any]]: ...

    @abstractmethod
    def _build(self, index: dict[str, Any]) -> None: ...

    @abstractmethod
    def _snapshot(self, folder: Path) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


def _ids(ids: Sequence[int]) -> list[int]:
    """Return ids as plain integers. Raises StoreError."""
    try:
        numbers = [operator.index(number) for number in ids]
    except TypeError:
        raise StoreError("an id is no whole number; nothing was written") from None
    for number in numbers:
        if not 0 <= number <= LARGEST_ID:
            raise StoreError(f"id {number} is not between 0 and 2**63 - 1; nothing was written")
    return numbers
