"""What people measured of vLLM on real GPUs, and what `roofline` predicts for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..calc import roofline, tables

FILE = Path(__file__).resolve().parents[1] / "data" / "public_speed.json"

KINDS = ("request_tokens_per_s", "output_tokens_per_s", "tpot_ms", "itl_ms", "ttft_ms")
"""What a row can report; the file's note says what each means."""

CONSTANTS = ("layer_launch_s", "memory_efficiency", "compute_efficiency", "request_s")
"""The constants of `roofline` that are fitted."""


def read() -> dict[str, Any]:
    """Return the file: its note, its sources by key, and its rows."""
    data: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return data


def rows() -> list[dict[str, Any]]:
    """Return the measurements, in the order of the file."""
    return list(read()["rows"])


def kind(row: dict[str, Any]) -> str:
    """Return which of `KINDS` a row reports."""
    return next(name for name in KINDS if name in row)


def predicted(row: dict[str, Any], **constants: float) -> float:
    """Return what `roofline` predicts for a row, in the row's unit; `constants` are those of `CONSTANTS`.

    A request of a closed loop takes its prefill, then a step for each further token; while it decodes, the prefills of the
    others take the machine's time too: users x output / (output x step + users x prefill).
    """
    what, users, output = kind(row), row["concurrency"], row["output"]
    gpu = tables.gpu(row["gpu"])
    settings = {"tensor_parallel": row.get("tensor_parallel", 1), **constants}
    alone = (row["model"], gpu, row["precision"], row["prompt"])
    if what == "ttft_ms":
        return float(1000 * roofline.ttft_s(*alone, **settings))
    settings.pop("request_s", None)
    prefill_s = roofline.prefill_s(*alone, **settings)["seconds"]
    context = row["prompt"] + output // 2
    step_s = roofline.decode_step_s(row["model"], gpu, row["precision"], users, context, **settings)["seconds"]
    if what in ("tpot_ms", "itl_ms"):
        return float(1000 * step_s)
    return float(users * output / (output * step_s + users * prefill_s))


def slower(row: dict[str, Any], **constants: float) -> float:
    """Return how many times slower than reported the prediction is; below 1 it is faster."""
    ratio = predicted(row, **constants) / row[kind(row)]
    return ratio if kind(row).endswith("_ms") else 1 / ratio


def factor(ratio: float) -> float:
    """Return how far a ratio is from 1 in either direction: 2 and a half are both a factor of 2."""
    return max(ratio, 1 / ratio)


def by_figure(chosen: list[dict[str, Any]]) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Return for decode (one request, or between two tokens), throughput (of all users) and TTFT what `slower` says of each row,
    with the row; a figure without rows is left out."""
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {"decode": [], "throughput": [], "TTFT": []}
    names = {"output_tokens_per_s": "throughput", "ttft_ms": "TTFT"}
    for row in chosen:
        found[names.get(kind(row), "decode")].append((slower(row), row))
    return {name: pairs for name, pairs in found.items() if pairs}
