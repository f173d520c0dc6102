"""Do `llminfra.load` and `vllm bench serve` measure the same?

One server, one workload (random prompts of the same length, the same answers' length and concurrency), runs interleaved;
the medians over the runs must agree within 10 %. Exits with 1 if they do not.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llminfra import load, models
from llminfra.engine import serve

RUNS, REQUESTS, CONCURRENCY, PROMPT, OUTPUT = 3, 24, 4, 64, 32
BOUND = 0.10


def vllm_bench(base_url: str, model: str, folder: str, seed: int) -> dict[str, float]:
    """Run `vllm bench serve` once; return its figures: output tokens per second, times in ms."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            str(Path(sys.executable).with_name("vllm")), "bench", "serve", "--backend", "openai",
            "--base-url", base_url.removesuffix("/v1"), "--endpoint", "/v1/completions", "--model", model,
            "--tokenizer", folder, "--dataset-name", "random", "--random-input-len", str(PROMPT),
            "--random-output-len", str(OUTPUT), "--num-prompts", str(REQUESTS), "--max-concurrency", str(CONCURRENCY),
            "--ignore-eos", "--temperature", "0", "--seed", str(seed), "--disable-tqdm",
            "--save-result", "--result-dir", out, "--result-filename", "result.json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            sys.exit(f"vllm bench serve failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        result = json.loads((Path(out) / "result.json").read_text())
    assert result["completed"] == REQUESTS
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (REQUESTS * PROMPT, REQUESTS * OUTPUT)
    return {
        "output tokens/s": result["output_throughput"],
        "mean TTFT ms": result["mean_ttft_ms"],
        "median TTFT ms": result["median_ttft_ms"],
        "median TPOT ms": result["median_tpot_ms"],
        "median ITL ms": result["median_itl_ms"],
    }


def ours(base_url: str, model: str, folder: str, seed: int) -> dict[str, float]:
    """Run the same load with `llminfra.load`."""
    requests = load.synthetic_requests(REQUESTS, PROMPT, OUTPUT, tokenizer=folder, seed=seed)
    results = load.closed_loop(base_url, model, requests, CONCURRENCY)
    assert {(r.error, r.prompt_tokens, r.output_tokens) for r in results} == {(None, PROMPT, OUTPUT)}
    measured = load.summary(results)
    return {
        "output tokens/s": measured.output_tokens_per_s,
        "mean TTFT ms": 1000 * measured.ttft_s.mean,
        "median TTFT ms": 1000 * measured.ttft_s.p50,
        "median TPOT ms": 1000 * measured.tpot_s.p50,
        "median ITL ms": 1000 * measured.itl_s.p50,
    }


def main() -> int:
    """Print the table; return 0 if every ratio is within the bound."""
    folder = models.ready()
    theirs_runs, our_runs = [], []
    started = time.perf_counter()
    with serve(folder, enable_prefix_caching=False) as server:
        print(f"server: answers after {time.perf_counter() - started:.0f} s")
        ours(server.base_url, server.model, folder, 99)
        for run in range(RUNS):
            our_runs.append(ours(server.base_url, server.model, folder, 2 * run))
            theirs_runs.append(vllm_bench(server.base_url, server.model, folder, 2 * run + 1))
    worst = 0.0
    for figure in our_runs[0]:
        mine = statistics.median(run[figure] for run in our_runs)
        theirs = statistics.median(run[figure] for run in theirs_runs)
        worst = max(worst, abs(mine / theirs - 1))
        print(f"{figure:16s} ours {mine:8.2f}   vllm bench {theirs:8.2f}   ratio {mine / theirs:.3f}")
    print(
        f"{RUNS} runs each, interleaved; the furthest median is {100 * worst:.1f} % off, the bound is {100 * BOUND:.0f} %"
    )
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
