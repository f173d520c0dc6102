"""Load a server with a number of requests in flight, and sum up what its users felt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import client

POINTS = (50, 90, 99)


def run(settings: dict[str, Any], prompts: list[str], max_tokens: int, in_flight: int) -> list[dict[str, Any]]:
    """Send each prompt once, with so many in flight, and return the results of `client.ask` in the order of the prompts."""
    # R10: your code
    raise NotImplementedError


def percentile(values: list[float], q: float) -> float | None:
    """Return the q-th percentile with linear interpolation between ranks; None for no values."""
    # R10: your code
    raise NotImplementedError


def summary(results: list[dict[str, Any]], slo: dict[str, float]) -> dict[str, Any]:
    """Return {requests, errors, duration_s, output_tokens_per_s, goodput_per_s, ttft_s, itl_s}."""
    # R10: your code
    raise NotImplementedError


def _ttft(result: dict[str, Any]) -> float:
    """Return the time to the first token in seconds."""
    # R10: your code
    raise NotImplementedError


def _tpot(result: dict[str, Any]) -> float:
    """Return the mean time per token after the first, by the server's count; 0 for an answer of one token."""
    # R10: your code
    raise NotImplementedError
