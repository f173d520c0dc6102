"""What the two forms of Qdrant, embedded and as a server, have alike: their settings, and how a filter is written."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from llminfra.stores.filters import Word
from llminfra.stores.settings import Settings

INDEX: Settings = {
    "m": (16, range(0, 1001)),
    "ef_construct": (100, range(4, 10_001)),
    "full_scan_threshold": (10_000, range(0, 2**31)),
    "max_indexing_threads": (0, range(0, 257)),
    "quantization": (None, (None, "int8", "binary")),
    "quantile": (None, float),
    "always_ram": (True, bool),
    "on_disk": (False, bool),
    "payload_index": (("roles",), tuple),
}
SEARCH: Settings = {
    "ef": (None, range(1, 100_001)),
    "exact": (False, bool),
    "rescore": (None, bool),
    "oversampling": (None, float),
    "ignore_quantization": (False, bool),
}


def qdrant_filter(conditions: dict[str, list[Word]], models: ModuleType) -> Any:
    """Return a filter made of the classes of `qdrant_edge` or `qdrant_client.models`; None if there are no conditions.

    A list asks for strings or for integers, so that a field with both is asked for either. No list is ever empty here: Qdrant
    takes an empty `should` for no condition at all, and returns everything.
    """
    must = []
    for field, values in conditions.items():
        kinds = [[value for value in values if isinstance(value, kind)] for kind in (str, int)]
        should = [models.FieldCondition(key=field, match=models.MatchAny(any=kind)) for kind in kinds if kind]
        must.append(should[0] if len(should) == 1 else models.Filter(should=should))
    return models.Filter(must=must) if must else None
