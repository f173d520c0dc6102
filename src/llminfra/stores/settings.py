"""The settings that a vector engine takes: what is known, what is allowed, what holds if nothing is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llminfra.errors import StoreError, nearest

Settings = Mapping[str, tuple[Any, Any]]
"""By name: the default, and what is allowed: a tuple of values, a range of whole numbers, or a type (float: a finite number above
0; tuple: of strings)."""


def checked(what: str, known: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given. Raises StoreError for one that is unknown or has a value that is not allowed."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise StoreError(f"{what}: no setting {name!r}{nearest(name, known)}; it takes: {takes}")
        default, allowed = known[name]
        if allowed is float and type(value) is int:
            value = float(value)
        elif allowed is tuple and isinstance(value, list):
            value = tuple(value)
        found[name] = value
        if value == default and type(value) is type(default):
            continue
        if isinstance(allowed, range):
            right, said = type(value) is int and value in allowed, f"a whole number from {allowed[0]} to {allowed[-1]}"
        elif isinstance(allowed, tuple):
            right = any(value == one and type(value) is type(one) for one in allowed)
            said = f"one of {', '.join(map(repr, allowed))}"
        elif allowed is float:
            right, said = isinstance(value, float) and 0 < value < math.inf, "a number above 0"
        elif allowed is tuple:
            right, said = isinstance(value, tuple) and all(isinstance(one, str) for one in value), "a list of strings"
        else:
            right, said = isinstance(value, allowed), f"of type {allowed.__name__}"
        if not right:
            raise StoreError(f"{what}: {name}={value!r}; it must be {said}")
    return found


def defaults(known: Settings) -> dict[str, Any]:
    """Return the default of each setting."""
    return {name: default for name, (default, _) in known.items()}
