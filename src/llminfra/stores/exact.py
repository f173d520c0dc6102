"""Every vector is compared, in numpy: the reference that tells what the others miss. It lives in this process's memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llminfra.errors import StoreError
from llminfra.stores.address import Address
from llminfra.stores.base import Hit, Store
from llminfra.stores.filters import Word, matches


class ExactStore(Store):
    """Vectors in a dict. It takes no settings, forgets all when it is closed, and breaks ties by id."""

    ENGINE: ClassVar[str] = "exact"

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.rows: dict[int, NDArray[np.float32]] = {}
        self.payloads: dict[int, dict[str, Any]] = {}
        self._stacked: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None

    def stacked(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all ids, sorted, and their vectors (n x dimensions), of length 1 if cosines are asked for."""
        if self._stacked is None:
            ids = sorted(self.rows)
            matrix = np.array([self.rows[number] for number in ids], np.float32).reshape(-1, self.dimensions)
            if self.distance == "cosine":
                matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
            self._stacked = np.array(ids, np.int64), matrix
        return self._stacked

    def _upsert(self, ids: list[int], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        self._stacked = None
        self.rows.update(zip(ids, vectors.copy(), strict=True))
        self.payloads.update(zip(ids, payloads, strict=True))

    def _delete(self, ids: list[int]) -> None:
        self._stacked = None
        for number in ids:
            self.rows.pop(number, None)
            self.payloads.pop(number, None)

    def _search(
        self, vector: NDArray[np.float32], limit: int, conditions: dict[str, list[Word]], options: dict[str, Any]
    ) -> list[Hit]:
        ids, matrix = self.stacked()
        if conditions:
            kept = np.array([matches(self.payloads[number], conditions) for number in ids.tolist()], bool)
            ids, matrix = ids[kept], matrix[kept]
        if self.distance == "euclid":
            near = -np.linalg.norm(matrix - vector, axis=1)
        else:
            near = matrix @ (vector / np.linalg.norm(vector) if self.distance == "cosine" else vector)
        best = np.argsort(-near, kind="stable")[:limit].tolist()
        return [Hit(int(ids[place]), float(near[place]), self.payload(int(ids[place]))) for place in best]

    def payload(self, number: int) -> dict[str, Any]:
        """Return a copy of a payload, which may be changed without changing what is stored."""
        return {name: list(held) if isinstance(held, list) else held for name, held in self.payloads[number].items()}

    def _count(self) -> int:
        return len(self.rows)

    def _ids(self) -> set[int]:
        return set(self.rows)

    def _contents(self) -> dict[int, dict[str, Any]]:
        return {number: self.payload(number) for number in self.payloads}

    def _build(self, index: dict[str, Any]) -> None:
        """Nothing to build."""

    def _snapshot(self, folder: Path) -> None:
        ids = sorted(self.rows)
        matrix = np.array([self.rows[number] for number in ids], np.float32).reshape(-1, self.dimensions)
        np.save(folder / f"{self.name}.npy", matrix)
        beside = {"ids": ids, "payloads": [self.payloads[number] for number in ids], "index": self.index}
        beside |= {"dimensions": self.dimensions, "distance": self.distance}
        (folder / f"{self.name}.json").write_text(json.dumps(beside, ensure_ascii=False), encoding="utf-8")

    def _memory(self) -> int:
        return sum(row.nbytes for row in self.rows.values())

    def _close(self) -> None:
        self.rows, self.payloads, self._stacked = {}, {}, None


def open_collection(
    address: Address, place: str, *, create: bool, index: dict[str, Any], search: dict[str, Any], **_: Any
) -> Store:
    """Return a new, empty store."""
    if place:
        raise StoreError(f"{address}: it keeps nothing on disk; write exact:")
    if not create:
        raise address.absent()
    return ExactStore(address, *address.needed(), index, search)


def restore(address: Address, place: str, folder: Path, **_: Any) -> Store:
    """Return a store with what a snapshot holds."""
    return load_snapshot(address, place, folder, open_collection, {})


def load_snapshot(
    address: Address, place: str, folder: Path, opened: Callable[..., Store], search: dict[str, Any]
) -> Store:
    """Return the store that `opened` makes, with what a snapshot holds."""
    beside = json.loads((folder / f"{address.name}.json").read_text(encoding="utf-8"))
    address = Address(address.url, address.name, beside["dimensions"], beside["distance"])
    store = opened(address, place, create=True, index=beside["index"], search=search)
    store.upsert(beside["ids"], np.load(folder / f"{address.name}.npy"), beside["payloads"])
    return store
