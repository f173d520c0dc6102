"""Another load test: coroutines that take from one queue, and numpy."""

import asyncio

import numpy as np
from client import ask


async def run(settings, prompts, max_tokens, in_flight):
    """Return a result for each prompt."""
    waiting, results = list(enumerate(prompts))[::-1], {}

    async def user():
        while waiting:
            number, prompt = waiting.pop()
            results[number] = await ask(settings | {"retries": 0}, prompt, max_tokens)

    await asyncio.gather(*(user() for _ in range(in_flight)))
    return [results[number] for number in range(len(prompts))]


def summary(results, slo):
    """Return what users felt."""
    fine = [one for one in results if not one["error"] and one["token_s"]]
    waits = np.array([one["token_s"][0] - one["start_s"] for one in fine])
    gaps = np.concatenate([np.diff(one["token_s"]) for one in fine]) if fine else np.array([])
    tokens = np.array([one["usage"]["completion_tokens"] for one in fine])
    spans = np.array([one["token_s"][-1] - one["token_s"][0] for one in fine])
    begin = min(one["start_s"] for one in results)
    duration = max([one["token_s"][-1] for one in fine], default=begin) - begin
    met = (waits <= slo["ttft_s"]) & ((tokens < 2) | (spans <= slo["tpot_s"] * (tokens - 1)))

    def points(values):
        return {f"p{q}": float(np.percentile(values, q)) if len(values) else None for q in (50, 90, 99)}

    return {
        "requests": len(results),
        "errors": len(results) - len(fine),
        "duration_s": duration,
        "output_tokens_per_s": float(tokens.sum()) / duration if fine else 0.0,
        "goodput_per_s": float(met.sum()) / duration if fine else 0.0,
        "ttft_s": points(waits),
        "itl_s": points(gaps),
    }
