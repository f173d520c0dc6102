"""Vector stores: real engines behind one small interface, told apart by a URL.

| URL | engine |
| --- | --- |
| `exact:` | numpy, every vector compared: the reference |
| `faiss:` | faiss in the process, without filters: for the theory of indexes |
| `edge:FOLDER` | Qdrant's engine in the process |
| `http://HOST:6333` | a Qdrant server |
| `chroma:FOLDER` | a Chroma server that starts and stops with the store |
| `postgres:FOLDER` | a PostgreSQL server with pgvector, likewise |
| `postgresql://...` | a PostgreSQL server with pgvector that runs elsewhere |

What each engine takes as settings stands at the head of its module.
"""

from __future__ import annotations

import json
import math
import os
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from llminfra.errors import StoreError, first_line
from llminfra.stores.address import Address
from llminfra.stores.base import MANIFEST, Hit, Store
from llminfra.stores.filters import Where
from llminfra.stores.settings import checked, defaults

__all__ = ["Hit", "Store", "StoreError", "Where", "open_store", "restore"]

DISTANCES = ("cosine", "dot", "euclid")
NAME = re.compile(r"[a-z][a-z0-9_]{2,47}")
"""What Chroma (from 3 letters), SQL and a file system all take as the name of a collection."""
ENGINES = {
    "exact": ("exact", "ExactStore"),
    "faiss": ("faiss_index", "FaissStore"),
    "edge": ("qdrant_edge", "EdgeStore"),
    "http": ("qdrant_server", "QdrantStore"),
    "https": ("qdrant_server", "QdrantStore"),
    "chroma": ("chroma", "ChromaStore"),
    "postgres": ("postgres", "PostgresStore"),
    "postgresql": ("postgres", "PostgresStore"),
}
"""By the scheme of the URL: module, imported when it is first needed (chromadb takes seconds), and class."""


def open_store(
    url: str,
    name: str,
    dimensions: int | None = None,
    distance: str | None = None,
    *,
    create: bool = True,
    api_key: str | None = None,
    timeout_s: float = 30,
    **settings: Any,
) -> Store:
    """Return the store of a collection, made if it is not there (unless `create` is False).

    Parameters
    ----------
    url: see above. name: 3 to 48 of a-z, 0-9 and _. dimensions: numbers in a vector; an existing collection knows it.
    distance: cosine (if none is given), dot or euclid. api_key: of a Qdrant server. timeout_s: after which a server that does
    not answer is given up. settings: the engine's index settings, and search options as defaults of all searches.

    Raises StoreError: unknown engine or setting, nothing there, or a collection with another distance, length or index.
    """
    module, kind = _engine(url)
    address = Address(url, name, dimensions, distance)
    if not NAME.fullmatch(name):
        raise StoreError(f"{address}: a name has 3 to 48 letters of a-z, 0-9 and _, and begins with a letter")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= 65536):
        raise StoreError(f"{address}: dimensions={dimensions!r}; it must be a whole number from 1 to 65536")
    if distance not in (None, *DISTANCES):
        raise StoreError(f"{address}: distance={distance!r}; it must be one of {', '.join(DISTANCES)}")
    if api_key is not None and not url.startswith("http"):
        raise StoreError(f"{address}: only a Qdrant server takes an api_key")
    given = checked(kind.ENGINE, {**kind.INDEX, **kind.SEARCH}, settings)
    store: Store = module.open_collection(
        address,
        _place(url),
        create=create,
        index={setting: value for setting, value in given.items() if setting in kind.INDEX},
        search={**defaults(kind.SEARCH), **{option: value for option, value in given.items() if option in kind.SEARCH}},
        api_key=api_key,
        timeout_s=_seconds(timeout_s),
    )
    return store


def restore(
    url: str, name: str, folder: str | os.PathLike[str], *, api_key: str | None = None, timeout_s: float = 30
) -> Store:
    """Return the store of a collection that `Store.snapshot` wrote to a folder; `url` must not have one of that name.

    A snapshot is in its engine's own form, and only that engine reads it. Raises StoreError.
    """
    module, kind = _engine(url)
    address, source = Address(url, name, None, None), Path(folder).expanduser()
    try:
        manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        held = manifest["engine"], manifest["name"]
    except (OSError, ValueError, LookupError, TypeError):
        raise StoreError(f"{address}: {source} holds no snapshot; name a folder that `snapshot` wrote") from None
    if held != (kind.ENGINE, name):
        there = f"it has the collection {held[1]!r} of the engine {held[0]}"
        raise StoreError(f"{address}: {source} holds no snapshot of a collection {name!r} of {kind.ENGINE}; {there}")
    faults: tuple[type[Exception], ...] = (*kind.FAULTS, OSError, ValueError, LookupError)
    try:
        store: Store = module.restore(address, _place(url), source, api_key=api_key, timeout_s=_seconds(timeout_s))
    except StoreError:
        raise
    except faults as error:
        raise StoreError(f"{address}: cannot be restored from {source}: {first_line(error)}") from error
    return store


def _seconds(timeout_s: float) -> float:
    """Return a time to wait, in seconds. Raises StoreError for one that is no time."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise StoreError(f"timeout_s={timeout_s!r}; it must be a number of seconds above 0")
    return timeout_s


def _engine(url: str) -> tuple[ModuleType, type[Store]]:
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in ENGINES:
        raise StoreError(f"{url!r}: no engine; a URL begins with one of {', '.join(f'{known}:' for known in ENGINES)}")
    module, kind = ENGINES[scheme]
    loaded = import_module(f"llminfra.stores.{module}")
    return loaded, getattr(loaded, kind)


def _place(url: str) -> str:
    """Return what an engine opens: the URL itself for a server elsewhere, else what follows the colon."""
    return url if "://" in url else url.partition(":")[2]
