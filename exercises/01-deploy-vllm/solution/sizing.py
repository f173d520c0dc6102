"""What fits on a card, and which deployment costs least: arithmetic before anything is rented."""

from __future__ import annotations

import math
from typing import Any

BLOCK_TOKENS = 16
HOURS_PER_MONTH = 730


def plan(model: dict[str, Any], card: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return {weights_bytes, kv_bytes_per_token, kv_bytes, max_concurrent, fits, replicas} for a card of memory and its users."""
    # solution R11
    # starter: raise NotImplementedError
    weights = weights_bytes(model, request["precision"])
    per_token = 2 * model["layers"] * model["kv_heads"] * model["head_dim"] * 2
    step = 2 * request["max_num_batched_tokens"] * (4 * model["hidden"] + 3 * model["intermediate"])
    logits = 4 * card["logit_copies"] * request["max_num_seqs"] * model["vocab"]
    budget = int(card["usable_bytes"] * request["gpu_memory_utilization"])
    cache = max(0, budget - weights - step - logits - card["graph_bytes"] - card["other_bytes"])
    blocks = max(0, cache // (BLOCK_TOKENS * per_token) - 1)
    held = min(blocks // math.ceil(request["context_tokens"] / BLOCK_TOKENS), request["max_num_seqs"])
    if request["context_tokens"] > model["max_position"]:
        held = 0
    return {
        "weights_bytes": weights,
        "kv_bytes_per_token": per_token,
        "kv_bytes": cache,
        "max_concurrent": held,
        "fits": held >= 1,
        "replicas": math.ceil(request["users"] / held) if held else 0,
    }
    # end solution


def weights_bytes(model: dict[str, Any], precision: str) -> int:
    """Return the bytes of the weights: in int4 the matrices of the layers shrink, embeddings and head do not."""
    # solution R11
    # starter: raise NotImplementedError
    query, cached = model["heads"] * model["head_dim"], model["kv_heads"] * model["head_dim"]
    layer = 2 * model["hidden"] * (query + cached) + 3 * model["hidden"] * model["intermediate"]
    bits = {"fp16": 16, "int4": 4.15625}[precision]
    tables = (1 if model["tied_embeddings"] else 2) * model["vocab"] * model["hidden"]
    return int(model["layers"] * layer * bits / 8 + 2 * tables)
    # end solution


def choose(workload: dict[str, Any], offer: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """Return {usd_per_month, pattern}: the cost of each deployment pattern that the workload allows, and the cheapest one."""
    # solution R12
    # starter: raise NotImplementedError
    requests, costs = workload["requests_per_month"], {}
    if workload["data_may_leave"]:
        read = workload["prompt_tokens"] * offer["usd_per_million_input"]
        written = workload["output_tokens"] * offer["usd_per_million_output"]
        costs["managed API"] = requests * (read + written) / 1e6
    machines = max(1, math.ceil(workload["peak_requests_per_s"] / machine["goodput_per_s"]))
    people = machine["people_usd_per_month"]
    costs["one model"] = machines * machine["usd_per_hour"] * HOURS_PER_MONTH + people
    if not workload["somebody_waits"]:
        hours = math.ceil(requests / machine["batch_requests_per_s"] / 3600)
        costs["batch"] = hours * machine["usd_per_hour"] + people
    return {"usd_per_month": costs, "pattern": min(costs, key=lambda name: costs[name])}
    # end solution
