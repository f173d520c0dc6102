"""Load a server with a number of requests in flight, and sum up what its users felt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import client

POINTS = (50, 90, 99)


def run(settings: dict[str, Any], prompts: list[str], max_tokens: int, in_flight: int) -> list[dict[str, Any]]:
    """Send each prompt once, with so many in flight, and return the results of `client.ask` in the order of the prompts."""
    # solution R10
    # starter: raise NotImplementedError
    once = {**settings, "retries": 0}
    with ThreadPoolExecutor(in_flight) as pool:
        return list(pool.map(lambda prompt: client.ask(once, prompt, max_tokens), prompts))
    # end solution


def percentile(values: list[float], q: float) -> float | None:
    """Return the q-th percentile with linear interpolation between ranks; None for no values."""
    # solution R10
    # starter: raise NotImplementedError
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    # end solution


def summary(results: list[dict[str, Any]], slo: dict[str, float]) -> dict[str, Any]:
    """Return {requests, errors, duration_s, output_tokens_per_s, goodput_per_s, ttft_s, itl_s}."""
    # solution R10
    # starter: raise NotImplementedError
    good = [one for one in results if one["error"] is None and one["token_s"]]
    first = min(one["start_s"] for one in results)
    duration = max((one["token_s"][-1] for one in good), default=first) - first
    ttft = [_ttft(one) for one in good]
    itl = [after - before for one in good for before, after in pairwise(one["token_s"])]
    met = [one for one in good if _ttft(one) <= slo["ttft_s"] and _tpot(one) <= slo["tpot_s"]]
    tokens = sum(one["usage"]["completion_tokens"] for one in good)
    return {
        "requests": len(results),
        "errors": len(results) - len(good),
        "duration_s": duration,
        "output_tokens_per_s": tokens / duration if duration else 0.0,
        "goodput_per_s": len(met) / duration if duration else 0.0,
        "ttft_s": {f"p{q}": percentile(ttft, q) for q in POINTS},
        "itl_s": {f"p{q}": percentile(itl, q) for q in POINTS},
    }
    # end solution


def _ttft(result: dict[str, Any]) -> float:
    """Return the time to the first token in seconds."""
    # solution R10
    # starter: raise NotImplementedError
    return float(result["token_s"][0] - result["start_s"])
    # end solution


def _tpot(result: dict[str, Any]) -> float:
    """Return the mean time per token after the first, by the server's count; 0 for an answer of one token."""
    # solution R10
    # starter: raise NotImplementedError
    tokens = result["usage"]["completion_tokens"]
    return float((result["token_s"][-1] - result["token_s"][0]) / (tokens - 1)) if tokens > 1 else 0.0
    # end solution
