"""Filters that mean the same in every engine: which payloads match, and which payloads can be stored at all.

`{"field": value}` matches a payload whose field is that value, or is a list that holds it; `{"field": [a, b]}` one that has
any of them, so an empty list matches nothing; several fields must all match. Values are strings and whole numbers: engines do
not agree on booleans and fractions (Qdrant Edge 0.9.0 takes True for 1), so those can be stored but not asked for, and "1", 1,
1.0 and True are four different things.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from llminfra.errors import StoreError

Word = str | int
Where = Mapping[str, Word | Collection[Word]]
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
LONGEST_TERM = 64
"""A longer value is compared by its digest: a database's index takes no long keys, and a payload may hold a whole text."""


def clauses(where: Where | None) -> dict[str, list[Word]] | None:
    """Return the values of which each field must have one; None if nothing can match. Raises StoreError."""
    if where is not None and not isinstance(where, Mapping):
        raise StoreError(
            f"where {where!r}: it must be fields and their values, like {{'roles': ['staff', 'everyone']}}"
        )
    found: dict[str, list[Word]] = {}
    for field, wanted in (where or {}).items():
        _check_field(field, "where")
        values: list[Any] = [wanted]
        if isinstance(wanted, Collection) and not isinstance(wanted, str | bytes | Mapping):
            values = list(wanted)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise StoreError(
                    f"where {field!r}: {value!r} is no string or whole number, and nothing else can be asked for"
                )
            _check_scalar(value, f"where {field!r}")
        found[field] = sorted(dict.fromkeys(values), key=lambda value: (isinstance(value, str), value))
    return None if any(not values for values in found.values()) else found


def asks_numbers(conditions: Mapping[str, list[Word]]) -> bool:
    """Return whether a filter asks for whole numbers, which an index of words does not serve."""
    return any(isinstance(value, int) for values in conditions.values() for value in values)


def term(field: str, value: Word) -> str:
    """Return the word that stands for a field's value: the same for equal ones of one type, and only for these."""
    written = json.dumps(value, ensure_ascii=False)
    if len(written) > LONGEST_TERM:
        written = "#" + hashlib.sha256(written.encode()).hexdigest()
    return f"{field}={written}"


def terms(payload: Mapping[str, Any]) -> list[str]:
    """Return the words of all that can be asked of a payload, sorted."""
    return sorted(
        {
            term(field, value)
            for field, held in payload.items()
            for value in (held if isinstance(held, list) else [held])
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
    )


def matches(payload: Mapping[str, Any], conditions: Mapping[str, list[Word]]) -> bool:
    """Return whether a payload has one of the values of every field."""
    for field, values in conditions.items():
        held = payload.get(field)
        many = held if isinstance(held, list) else [held]
        if not any(one in values for one in many if not isinstance(one, bool | float)):
            return False
    return True


def check_payload(payload: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a payload as plain dict, lists and scalars. Raises StoreError for what some engine could not give back."""
    what = f"payload of id {number}"
    if not isinstance(payload, Mapping):
        raise StoreError(f"{what}: it must be a dict, not {type(payload).__name__}; nothing was written")
    plain: dict[str, Any] = {}
    for field, value in payload.items():
        _check_field(field, what)
        for one in value if isinstance(value, list | tuple) else (value,):
            _check_scalar(one, f"{what}: {field!r}")
        plain[field] = list(value) if isinstance(value, list | tuple) else value
    return plain


def _check_field(field: object, what: str) -> None:
    if not isinstance(field, str) or not FIELD.fullmatch(field):
        raise StoreError(f"{what}: the field {field!r} must be a name of letters, digits and _, up to 64")


def _check_scalar(value: object, what: str) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise StoreError(f"{what}: a string with NUL or half a surrogate pair, which databases refuse")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise StoreError(f"{what}: {value} has more than 64 bits")
    elif not isinstance(value, float):
        raise StoreError(
            f"{what}: {type(value).__name__}; it must be a string, number, boolean, None or a list of these"
        )
    elif not math.isfinite(value):
        raise StoreError(f"{what}: {value} is no number that JSON can hold")
