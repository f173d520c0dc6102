"""Drive an OpenAI-compatible server and measure what its users feel.

Times follow the field's terms: TTFT, from sending a request to its first token; ITL, the gaps between tokens that follow;
TPOT, their mean per request; end to end, until the last token. They are seen from outside, between the pieces that a
server sends: one that sends several tokens at once has fewer and longer gaps, and TPOT is what stays comparable. A closed
loop keeps a number of requests in flight; an open loop sends at a rate, whatever the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .errors import LoadError

LOCAL = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Request:
    """A prompt (text, or messages of a chat), how many tokens to ask for, and more fields of the request's body."""

    prompt: str | list[dict[str, Any]]
    max_tokens: int
    body: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What one request met: times in seconds, tokens as the server counted them, or the error."""

    start_s: float
    ttft_s: float = math.nan
    itl_s: list[float] = field(default_factory=list)
    e2e_s: float = math.nan
    prompt_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    error: str | None = None

    @property
    def tpot_s(self) -> float:
        """Mean time per output token after the first; not a number for answers of one token."""
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1) if self.output_tokens > 1 else math.nan


@dataclass(frozen=True)
class Percentiles:
    """Mean and percentiles of a time in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Summary:
    """What a load measured: counts, the time from first sending to last token, rates, and latencies in seconds."""

    requests: int
    errors: int
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    mean_in_flight: float
    ttft_s: Percentiles
    itl_s: Percentiles
    tpot_s: Percentiles
    e2e_s: Percentiles


def percentile(values: Sequence[float], q: float) -> float:
    """Return the q-th percentile (0 to 100) with linear interpolation between ranks, as numpy's default does.

    Not a number for no values. Raises ValueError for q outside its range.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {q}")
    ordered = sorted(values)
    if not ordered:
        return math.nan
    position = (len(ordered) - 1) * q / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _percentiles(values: Sequence[float]) -> Percentiles:
    known = [value for value in values if not math.isnan(value)]
    mean = statistics.fmean(known) if known else math.nan
    return Percentiles(mean, *(percentile(known, q) for q in (50, 90, 99)))


def summary(results: Sequence[Result]) -> Summary:
    """Return rates and percentiles over the requests that succeeded. Raises LoadError if there are no results."""
    if not results:
        raise LoadError("no results to sum up")
    good = [result for result in results if result.error is None]
    begin = min(result.start_s for result in results)
    end = max((result.start_s + result.e2e_s for result in good), default=begin)
    duration = end - begin
    output = sum(result.output_tokens for result in good)
    total = output + sum(result.prompt_tokens for result in good)

    def rate(amount: float) -> float:
        return amount / duration if duration > 0 else 0.0

    return Summary(
        requests=len(results),
        errors=len(results) - len(good),
        duration_s=duration,
        requests_per_s=rate(len(good)),
        output_tokens_per_s=rate(output),
        total_tokens_per_s=rate(total),
        mean_in_flight=rate(sum(result.e2e_s for result in good)),
        ttft_s=_percentiles([result.ttft_s for result in good]),
        itl_s=_percentiles([gap for result in good for gap in result.itl_s]),
        tpot_s=_percentiles([result.tpot_s for result in good]),
        e2e_s=_percentiles([result.e2e_s for result in good]),
    )


def goodput(results: Sequence[Result], *, ttft_s: float = math.inf, tpot_s: float = math.inf) -> float:
    """Return requests per second that met the objective in TTFT and in TPOT: goodput, as DistServe has it (2401.09670)."""
    met = [
        result
        for result in results
        if result.error is None and result.ttft_s <= ttft_s and (math.isnan(result.tpot_s) or result.tpot_s <= tpot_s)
    ]
    duration = summary(results).duration_s
    return len(met) / duration if duration > 0 else 0.0


def closed_loop(
    base_url: str,
    model: str,
    requests: Sequence[Request],
    concurrency: int,
    *,
    timeout_s: float = 300,
    allow_remote: bool = False,
) -> list[Result]:
    """Send the requests with so many in flight: the next one goes when one is done. Returns a result each, in order.

    Raises LoadError for a server that is not on this machine unless `allow_remote`, or a concurrency below 1. What goes
    wrong with a request stands in its result; what is not done after `timeout_s` is cancelled and says so.
    """
    if concurrency < 1:
        raise LoadError(f"concurrency must be at least 1, not {concurrency}")

    async def drive(send: Callable[[Request], Awaitable[Result]]) -> list[Result]:
        slots = asyncio.Semaphore(concurrency)

        async def one(request: Request) -> Result:
            async with slots:
                return await send(request)

        return list(await asyncio.gather(*map(one, requests)))

    return _run(base_url, model, drive, timeout_s, allow_remote)


def open_loop(
    base_url: str,
    model: str,
    requests: Sequence[Request],
    rate_per_s: float,
    *,
    seed: int = 0,
    timeout_s: float = 300,
    allow_remote: bool = False,
) -> list[Result]:
    """Send the requests at a mean rate with exponential gaps (a Poisson process), whether or not earlier ones are done.

    Returns and raises as `closed_loop`; LoadError for a rate that is not positive.
    """
    if not rate_per_s > 0:
        raise LoadError(f"the rate must be positive, not {rate_per_s}")

    async def drive(send: Callable[[Request], Awaitable[Result]]) -> list[Result]:
        gaps = random.Random(seed)
        due, begin, sent = 0.0, time.perf_counter(), []
        for request in requests:
            await asyncio.sleep(max(0.0, begin + min(due, timeout_s) - time.perf_counter()))
            sent.append(asyncio.ensure_future(send(request)))
            due += gaps.expovariate(rate_per_s)
        return list(await asyncio.gather(*sent))

    return _run(base_url, model, drive, timeout_s, allow_remote)


def synthetic_requests(
    count: int, prompt_tokens: int, output_tokens: int, *, tokenizer: str | None = None, seed: int = 0
) -> list[Request]:
    """Return requests of random words, all different, whose answers have exactly `output_tokens` tokens.

    With a tokenizer's folder the prompts have exactly `prompt_tokens` tokens, special ones included; without one, as many
    short words. Raises LoadError if the tokenizer cannot do that.
    """
    source = random.Random(seed)
    exact = {"ignore_eos": True, "temperature": 0}
    if tokenizer is None:
        prompts = [" ".join(f"{source.choice('bcdfgklmnprst')}a" for _ in range(prompt_tokens)) for _ in range(count)]
        return [Request(prompt, output_tokens, exact) for prompt in prompts]
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    wanted = prompt_tokens - len(words("")["input_ids"])
    spaced = sorted(number for token, number in words.get_vocab().items() if re.fullmatch("[Ġ▁][a-z]+", token))
    if wanted < 1 or not spaced:
        raise LoadError(f"the tokenizer of {tokenizer} makes no prompts of {prompt_tokens} tokens")
    prompts = []
    for _ in range(100 * count):
        prompt = str(words.decode([source.choice(spaced) for _ in range(wanted)]))
        if len(prompts) < count and len(words(prompt)["input_ids"]) == prompt_tokens:
            prompts.append(prompt)
        if len(prompts) == count:
            return [Request(prompt, output_tokens, exact) for prompt in prompts]
    raise LoadError(f"the tokenizer of {tokenizer} makes too few prompts of exactly {prompt_tokens} tokens")


def _run(
    base_url: str,
    model: str,
    drive: Callable[[Callable[[Request], Awaitable[Result]]], Awaitable[list[Result]]],
    timeout_s: float,
    allow_remote: bool,
) -> list[Result]:
    host = urlsplit(base_url).hostname
    if host is None or not base_url.startswith(("http://", "https://")):
        raise LoadError(f"{base_url!r} is no address of a server: write http://127.0.0.1:8000/v1")
    if host not in LOCAL and not allow_remote:
        raise LoadError(f"{host} is not this machine; pass allow_remote=True if you may load it")

    async def main() -> list[Result]:
        deadline = time.perf_counter() + timeout_s
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            return await drive(lambda request: _send(session, base_url, model, request, deadline))

    return _in_thread(main)


def _in_thread(main: Callable[[], Coroutine[Any, Any, list[Result]]]) -> list[Result]:
    """Run a coroutine to its end in a thread of its own, so that it works under a notebook's running loop too.

    An interrupt here (Ctrl-C) cancels it, so that no request is left on its way.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    done = threading.Event()

    def target() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(BaseException):
            loop.run_until_complete(task)
        loop.close()
        done.set()

    threading.Thread(target=target, daemon=True).start()
    try:
        done.wait()  # An interrupted Thread.join takes the thread for finished.
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        done.wait()
        raise
    return task.result()


async def _send(session: aiohttp.ClientSession, base_url: str, model: str, request: Request, deadline: float) -> Result:
    result = Result(start_s=time.perf_counter())
    try:
        async with asyncio.timeout(max(0.0, deadline - result.start_s)):
            await _stream(session, base_url, model, request, result)
    except TimeoutError:
        result.error = "not done when the load's time was up"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        result.error = f"{type(error).__name__}: {error}"
    except (LookupError, TypeError, AttributeError) as error:
        result.error = f"the server sent an event that is no completion ({type(error).__name__}: {error})"
    return result


async def _stream(session: aiohttp.ClientSession, base_url: str, model: str, request: Request, result: Result) -> None:
    chat = not isinstance(request.prompt, str)
    body = {
        "model": model,
        "messages" if chat else "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **request.body,
    }
    result.start_s = last = time.perf_counter()
    path = "chat/completions" if chat else "completions"
    async with session.post(f"{base_url.rstrip('/')}/{path}", json=body) as response:
        if response.status != 200:
            result.error = f"HTTP {response.status}: {(await response.text())[:300]}"
            return
        finished = False
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            now = time.perf_counter()
            data = line[5:].strip()
            if data == b"[DONE]":
                finished = True
                break
            event = json.loads(data)
            if "error" in event:
                result.error = str(event["error"])
                return
            if event.get("usage"):
                result.prompt_tokens = event["usage"]["prompt_tokens"]
                result.output_tokens = event["usage"]["completion_tokens"]
            for choice in event.get("choices", []):
                said = choice.get("delta", {}) if chat else choice
                text = said.get("content" if chat else "text")
                if text is None or ("role" in said and not text):
                    continue
                if math.isnan(result.ttft_s):
                    result.ttft_s = now - result.start_s
                else:
                    result.itl_s.append(now - last)
                last = now
                result.text += text
        result.e2e_s = last - result.start_s
        if not finished:
            result.error = "the stream ended before its end mark"
