"""What the CPU engine makes of float32 and of bf16 on this processor: tokens per second and a prompt's time, as ratios.

Also how long an engine takes until it is ready: the first one, with the import of vLLM, and another in the same process.
"""

import time
from typing import Any

from llminfra import engine, models


def tokens_per_s(llm: Any, requests: int, tokens: int = 32) -> float:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    started = time.perf_counter()
    llm.generate(["Once upon a time"] * requests, params, use_tqdm=False)
    return requests * tokens / (time.perf_counter() - started)


def prefill_s(llm: Any, tokens: int = 800) -> float:
    from vllm import SamplingParams

    prompt = {"prompt_token_ids": list(range(1000, 1000 + tokens))}
    started = time.perf_counter()
    llm.generate([prompt], SamplingParams(max_tokens=1), use_tqdm=False)
    return time.perf_counter() - started


def main() -> None:
    measured: dict[str, dict[str, float]] = {}
    folder = models.ready("cpu")
    for dtype in ("float32", "bfloat16"):
        started = time.perf_counter()
        with engine.offline(folder, dtype=dtype) as llm:
            print(f"engine in {dtype}: ready after {time.perf_counter() - started:.1f} s")
            tokens_per_s(llm, 1, 4)
            measured[dtype] = {f"{n} at once, tokens/s": tokens_per_s(llm, n) for n in (1, 4, 16)}
            measured[dtype]["800 tokens of prompt per s"] = 800 / prefill_s(llm)
    for what, wide in measured["float32"].items():
        narrow = measured["bfloat16"][what]
        print(f"{what}: float32 {wide:.0f}, bf16 {narrow:.0f}; float32 is {wide / narrow:.2f} times as fast")


if __name__ == "__main__":
    main()
