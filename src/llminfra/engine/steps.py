"""Run requests on a real engine in this process, step by step, and say what the simulator says of its own.

The engine is `engine.offline`'s; its scheduler is watched, so that each step is known by what was in it and how long it
took. No server and no client stand between: what is measured is the engine.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

from ..calc import simulator

Step = tuple[int, int, int, int, float]
"""tokens, samples, pairs, cached, seconds: as `calibration.fit` takes them."""


@contextlib.contextmanager
def watched(llm: Any) -> Iterator[list[tuple[int, int, int, int]]]:
    """Note what the scheduler puts into each step while the block runs: (tokens, samples, pairs, cached)."""
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    original, seen = scheduler.schedule, []

    def schedule(*args: Any, **kwargs: Any) -> Any:
        decision = original(*args, **kwargs)
        tokens = samples = pairs = cached = 0
        for name, part in decision.num_scheduled_tokens.items():
            request = scheduler.requests[name]
            before = request.num_computed_tokens - part  # the scheduler counts a step's tokens as computed at once
            tokens += part
            samples += request.num_computed_tokens == request.num_tokens
            pairs += part * before + part * (part + 1) // 2
            cached += before + part
        seen.append((tokens, samples, pairs, cached))
        return decision

    scheduler.schedule = schedule
    try:
        yield seen
    finally:
        scheduler.schedule = original


def run(llm: Any, requests: list[Any], concurrency: int | None = None) -> dict[str, Any]:
    """Run requests (of `workload.requests`) on an offline engine and return what was measured.

    Prompts are made of arbitrary tokens, a different beginning for each request. With `concurrency`, so many users each
    send the next request when the last one is answered; else requests arrive at their times. Returns steps (a list of
    `Step`), and as `simulator.simulate` does duration_s, output_tokens_per_s, ttft_s, itl_s and e2e_s. Every request gets
    all its output tokens, or the engine's own error comes out.
    """
    from vllm import SamplingParams

    engine = llm.llm_engine
    words = llm.get_tokenizer().vocab_size - 1000
    tokens_at: dict[int, list[int]] = {}
    arrived: dict[int, int] = {}
    steps: list[Step] = []
    started, upcoming, ended = time.perf_counter_ns(), 0, 0

    def send(at_ns: int) -> None:
        nonlocal upcoming
        request = requests[upcoming]
        ids = [1000 + (upcoming * 7919 + place * 104_729) % words for place in range(request.prompt)]
        params = SamplingParams(temperature=0, max_tokens=request.output, ignore_eos=True)
        engine.add_request(str(upcoming), {"prompt_token_ids": ids}, params)
        tokens_at[upcoming], arrived[upcoming] = [], at_ns
        upcoming += 1

    with watched(llm) as seen:
        for _ in range(min(concurrency or 0, len(requests))):
            send(0)
        while ended < len(requests):
            now = time.perf_counter_ns() - started
            while concurrency is None and upcoming < len(requests) and requests[upcoming].arrival_ns <= now:
                send(requests[upcoming].arrival_ns)
            if not engine.has_unfinished_requests():
                time.sleep((requests[upcoming].arrival_ns - now) / 1e9)
                continue
            begun = time.perf_counter_ns()
            answers = engine.step()
            now = time.perf_counter_ns()
            steps.append((*seen[-1], (now - begun) / 1e9))
            for answer in answers:
                number = int(answer.request_id)
                new = len(answer.outputs[0].token_ids) - len(tokens_at[number])
                tokens_at[number] += [now - started] * new
                if answer.finished:
                    ended += 1
                    if concurrency is not None and upcoming < len(requests):
                        send(now - started)
    duration_s = max(times[-1] for times in tokens_at.values()) / 1e9
    gaps = [(after - before, 1) for times in tokens_at.values() for before, after in itertools.pairwise(times)]
    return {
        "steps": steps,
        "duration_s": duration_s,
        "output_tokens_per_s": sum(map(len, tokens_at.values())) / duration_s,
        "ttft_s": simulator.summary([(times[0] - arrived[n], 1) for n, times in tokens_at.items()]),
        "itl_s": simulator.summary(gaps),
        "e2e_s": simulator.summary([(times[-1] - arrived[n], 1) for n, times in tokens_at.items()]),
    }
