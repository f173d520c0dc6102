"""A filter as Qdrant writes it: the same in its client and in its embedded engine, which name the parts alike."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from llminfra.rag.stores.filters import Word


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
