"""The one error of all stores, and the settings that an engine takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llminfra.engine.errors import nearest

Settings = Mapping[str, tuple[Any, Any]]
"""By name: the default, and what is allowed: a tuple of values, a range of whole numbers, or a type."""


class StoreError(Exception):
    """A store cannot do what was asked: one line that says where, what and what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line that an exception says, or its kind if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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
        else:
            right = isinstance(value, allowed) and (allowed is bool or not isinstance(value, bool))
            said = f"of type {allowed.__name__}"
        if not right:
            raise StoreError(f"{what}: {name}={value!r}; it must be {said}")
    return found


def defaults(known: Settings) -> dict[str, Any]:
    """Return the default of each setting."""
    return {name: default for name, (default, _) in known.items()}
