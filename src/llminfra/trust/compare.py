"""Compare each row with what `calc` predicts for it, and sum up the errors by kind."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..calc import memory, parallel, roofline, tables
from .rows import MemoryRow

GIB = 2**30


@dataclass(frozen=True)
class Bar:
    """What is asked of a kind of figure: most rows within `usual` of the report, and every one within `limit`."""

    usual: float
    limit: float


BARS = {
    "weights": Bar(0.03, 0.03),
    "cache per token": Bar(0.03, 0.03),
    "KV cache": Bar(0.10, 0.15),
    "concurrency": Bar(0.10, 0.15),
}
"""The kinds of figures in the order in which they are shown; errors are shares of the reported figure."""

USUAL_SHARE = 0.8
"""The share of rows of a kind that must be within `Bar.usual`."""


@dataclass(frozen=True)
class Compared:
    """A figure of a row: what `calc` predicts and what was reported, in the unit of the report."""

    row: MemoryRow
    kind: str
    predicted: float
    reported: float

    @property
    def error(self) -> float:
        """How far the prediction lies above the report (below if negative), as a share of the report."""
        return self.predicted / self.reported - 1


@dataclass(frozen=True)
class Summary:
    """The errors of one kind: how many, their median size, the share of them within the usual bar, and the worst."""

    kind: str
    rows: int
    median: float
    usual_share: float
    worst: Compared

    @property
    def holds(self) -> bool:
        """Whether the kind is within its bar."""
        return self.usual_share >= USUAL_SHARE and abs(self.worst.error) <= BARS[self.kind].limit


def plan(row: MemoryRow) -> dict[str, Any]:
    """Return what `memory.plan` says for a row's settings. Raises ValueError as it does, or for an unknown name."""
    settings = {
        "kv_precision": row.kv_precision,
        "gpu_memory_utilization": row.gpu_memory_utilization,
        "max_num_batched_tokens": row.max_num_batched_tokens,
        "max_num_seqs": row.max_num_seqs,
        "block_tokens": row.block_tokens,
        "graphs": row.graphs,
    }
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    context_tokens = row.max_model_len or 2048  # weights don't depend on it
    return memory.plan(row.model, row.gpu, row.precision, context_tokens, tensor_parallel=row.tensor_parallel, **given)


def unpredicted(row: MemoryRow) -> str:
    """Return why `calc` cannot predict a row, which is that it lacks the model, the card or the precision, or ""."""
    try:
        tables.model(row.model)
        tables.gpu(row.gpu)
        memory.weights_bytes(row.model, row.precision)
    except ValueError as error:
        return str(error).split(";")[0]
    return ""


def compared(row: MemoryRow) -> list[Compared]:
    """Return a row's figures beside what `calc` predicts; none where `unpredicted` says why or where it did not start."""
    if unpredicted(row):
        return []
    found: dict[str, tuple[float, float]] = {}
    said = row.reported
    if "kv_bytes_per_token" in said:
        share = parallel.share(row.model, row.tensor_parallel)
        each = memory.kv_bytes_per_token(row.model, row.kv_precision or "fp16") * share
        found["cache per token"] = (each, said["kv_bytes_per_token"])
    if "weights_gib" in said:
        weights = -(-memory.weights_bytes(row.model, row.precision) // row.tensor_parallel)
        found["weights"] = (weights / GIB, said["weights_gib"])
    if row.starts and row.gpu_memory_utilization is not None:
        planned = plan(row)
        if "kv_tokens" in said:
            found["KV cache"] = (planned["kv_tokens"], said["kv_tokens"])
        elif "kv_gib" in said:
            found["KV cache"] = (planned["kv_bytes"] / GIB, said["kv_gib"])
        if "concurrency" in said:
            found["concurrency"] = (concurrency(row, planned), said["concurrency"])
    return [Compared(row, kind, *found[kind]) for kind in BARS if kind in found]


def concurrency(row: MemoryRow, planned: dict[str, Any]) -> float:
    """Return how many requests of `max_model_len` the planned cache has blocks for, as vLLM logs it: not a whole number."""
    assert row.max_model_len
    block_tokens = row.block_tokens or 16
    padded = memory.kv_blocks(row.max_model_len, block_tokens) * block_tokens
    share = parallel.share(row.model, row.tensor_parallel)
    request_bytes = memory.kv_bytes(row.model, padded, row.kv_precision or "fp16") * share
    return float(planned["kv_bytes"] / request_bytes)


def predicted_start(row: MemoryRow) -> bool | None:
    """Return whether `calc` says that the engine starts: the card multiplies the precision, the heads can be divided, and a
    request of `max_model_len` fits. None where the row lacks a setting, or `calc` a name."""
    if unpredicted(row) or row.gpu_memory_utilization is None or row.max_model_len is None:
        return None
    try:
        roofline.rate_flop_per_s(row.gpu, row.precision)
        return bool(plan(row)["fits"])
    except ValueError:
        return False


def summary(figures: Iterable[Compared]) -> list[Summary]:
    """Return the errors by kind, in the order of `BARS`; a kind without figures is left out."""
    by_kind: dict[str, list[Compared]] = {}
    for one in figures:
        by_kind.setdefault(one.kind, []).append(one)
    found = []
    for kind in filter(by_kind.__contains__, BARS):
        sizes = [abs(one.error) for one in by_kind[kind]]
        within = sum(size <= BARS[kind].usual for size in sizes) / len(sizes)
        worst = max(by_kind[kind], key=lambda one: abs(one.error))
        found.append(Summary(kind, len(sizes), statistics.median(sizes), within, worst))
    return found


def out_of_bounds(figures: Iterable[Compared]) -> list[Compared]:
    """Return the figures beyond the limit of their kind, the worst first."""
    beyond = [one for one in figures if abs(one.error) > BARS[one.kind].limit]
    return sorted(beyond, key=lambda one: -abs(one.error))
