"""Which collection is meant, and whether it is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llminfra.errors import StoreError


@dataclass(frozen=True)
class Address:
    """Which collection is meant: its engine's URL, its name, how many numbers a vector has, and the distance.

    `dimensions` and `distance` are None where they are whatever the collection has.
    """

    url: str
    name: str
    dimensions: int | None
    distance: str | None

    def __str__(self) -> str:
        return f"{self.url} {self.name!r}"

    def needed(self) -> tuple[int, str]:
        """Return dimensions and distance for a collection that is made now. Raises StoreError without dimensions."""
        if self.dimensions is None:
            raise StoreError(f"{self}: give `dimensions`: the collection is not there yet and is made now")
        return self.dimensions, self.distance or "cosine"

    def agreed(self, dimensions: int, distance: str) -> tuple[int, str]:
        """Return what an existing collection has. Raises StoreError if something else was asked for."""
        for what, wanted, found in (
            ("dimensions", self.dimensions, dimensions),
            ("distance", self.distance, distance),
        ):
            if wanted is not None and wanted != found:
                raise StoreError(
                    f"{self}: it exists with {what} {found}, not {wanted}; open it so, or take another name"
                )
        return dimensions, distance

    def settled(self, stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the index settings that an existing collection has. Raises StoreError if others were given."""
        for name, value in given.items():
            if name not in stored:
                raise StoreError(f"{self}: another version made it, without {name}; take another name or folder")
            if stored[name] != value:
                raise StoreError(
                    f"{self}: it exists with {name}={stored[name]!r}, not {value!r}; open it without that, and call build"
                )
        return dict(stored)

    def absent(self) -> StoreError:
        """Return the error of a collection that is not there and must not be made."""
        return StoreError(f"{self}: there is no such collection; open it with create=True to make it")


def folder_of(address: Address, place: str) -> Path:
    """Return the folder that a URL names. Raises StoreError if it names none."""
    if not place:
        raise StoreError(f"{address}: it names no folder; write {address.url}/some/folder")
    try:
        return Path(place).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # the home of an unknown user; a NUL
        raise StoreError(f"{address}: {place!r} names no folder: {error}") from None
