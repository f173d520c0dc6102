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
    # solution R8
    # starter: raise NotImplementedError
    wait = min(settings["wait_s"] * 2 ** (retry - 1), settings["longest_wait_s"])
    if retry_after and re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return float(retry_after) + random.uniform(0, wait)
    return random.uniform(wait / 2, wait)
    # end solution


def events(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event: bytes come in pieces that end anywhere, and only a line feed ends a line."""
    # solution R7
    # starter: raise NotImplementedError
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip().decode()
    # end solution


def ask(settings: dict[str, Any], prompt: str, max_tokens: int) -> dict[str, Any]:
    """Return what became of a question: {text, usage, finish_reason, error, attempts, start_s, token_s}."""
    result: dict[str, Any] = {"text": "", "usage": None, "finish_reason": None, "error": None, "attempts": 0}
    result |= {"start_s": time.perf_counter(), "token_s": []}
    # solution R7, R8, R9
    # starter: raise NotImplementedError
    body = {"model": settings["model"], "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    while True:
        result["attempts"] += 1
        try:
            again = _attempt(settings, body, result)
        except httpx.ConnectTimeout as error:
            again, result["error"] = "", _error("unavailable", None, error)
        except httpx.TimeoutException as error:
            again, result["error"] = None, _error("timeout", None, error)
        except httpx.TransportError as error:
            again, result["error"] = "", _error("unavailable", None, error)
        if again is None or result["attempts"] > settings["retries"]:
            return result
        time.sleep(backoff(settings, result["attempts"], again or None))
        result["error"] = None
    # end solution


def _attempt(settings: dict[str, Any], body: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Send a request once and fill in the result; return None if it is settled, else the answer's Retry-After or ""."""
    # solution R7, R8, R9
    # starter: raise NotImplementedError
    key = settings.get("api_key") or os.environ.get("VLLM_API_KEY")
    timeout = httpx.Timeout(settings["silence_s"], connect=settings["connect_s"])
    with HTTP.stream(
        "POST",
        f"{settings['base_url']}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=timeout,
    ) as response:
        if response.status_code != 200:
            response.read()
            busy = response.status_code in AGAIN
            result["error"] = _error("unavailable" if busy else "refused", response.status_code, _message(response))
            return response.headers.get("Retry-After", "") if busy else None
        try:
            _read(response, result)
        except httpx.TimeoutException as error:
            result["error"] = _error("timeout", 200, error)
        except httpx.TransportError as error:
            result["error"] = _error("broken", 200, error)
        return None
    # end solution


def _read(response: httpx.Response, result: dict[str, Any]) -> None:
    """Read a stream into the result, and say what was wrong with it."""
    # solution R7, R9
    # starter: raise NotImplementedError
    for data in events(response.iter_raw()):
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            result["error"] = _error("broken", 200, event["error"]["message"])
            return
        result["usage"] = event.get("usage") or result["usage"]
        for choice in event["choices"]:
            if choice["delta"].get("content"):
                result["token_s"].append(time.perf_counter())
                result["text"] += choice["delta"]["content"]
            result["finish_reason"] = choice["finish_reason"] or result["finish_reason"]
    result["error"] = _error("broken", 200, "the stream ended before its end mark")
    # end solution


def _error(kind: str, status: int | None, message: object) -> dict[str, Any]:
    return {"kind": kind, "status": status, "message": str(message)}


def _message(response: httpx.Response) -> str:
    """Return the server's own words of an error."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
