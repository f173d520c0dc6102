"""A client of an OpenAI-compatible server: streams, waits, and knows what may be sent again."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

AGAIN = (429, 503)
"""Statuses of a server that has not begun to work on the request."""
HTTP = httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=None))


def backoff(settings: dict[str, Any], retry: int, retry_after: str | None) -> float:
    """Return how many seconds to wait before a retry, the first of which is number 1."""
    # R8: your code
    raise NotImplementedError


def events(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event: bytes come in pieces that end anywhere, and only a line feed ends a line."""
    # R7: your code
    raise NotImplementedError


def ask(settings: dict[str, Any], prompt: str, max_tokens: int) -> dict[str, Any]:
    """Return what became of a question: {text, usage, finish_reason, error, attempts, start_s, token_s}."""
    result: dict[str, Any] = {"text": "", "usage": None, "finish_reason": None, "error": None, "attempts": 0}
    result |= {"start_s": time.perf_counter(), "token_s": []}
    # R7, R8, R9: your code
    raise NotImplementedError


def _attempt(settings: dict[str, Any], body: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Send a request once and fill in the result; return None if it is settled, else the answer's Retry-After or ""."""
    # R7, R8, R9: your code
    raise NotImplementedError


def _read(response: httpx.Response, result: dict[str, Any]) -> None:
    """Read a stream into the result, and say what was wrong with it."""
    # R7, R9: your code
    raise NotImplementedError


def _error(kind: str, status: int | None, message: object) -> dict[str, Any]:
    return {"kind": kind, "status": status, "message": str(message)}


def _message(response: httpx.Response) -> str:
    """Return the server's own words of an error."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
