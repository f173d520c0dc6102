"""Another way to the same plan."""

from math import ceil


def plan(model, card, request):
    """Return what fits."""
    hidden, inner = model["hidden"], model["intermediate"]
    attention = hidden * model["head_dim"] * (2 * model["heads"] + 2 * model["kv_heads"])
    matrices = model["layers"] * (attention + 3 * hidden * inner)
    norms = (2 * model["layers"] + 1) * hidden
    embedding = model["vocab"] * hidden * (2 - bool(model["tied_embeddings"]))
    width = {"fp16": 2, "int4": 4.15625 / 8}[request["precision"]]
    weights = round(matrices * width) + 2 * (embedding + norms)
    token = 4 * model["layers"] * model["kv_heads"] * model["head_dim"]
    workspace = request["max_num_batched_tokens"] * (8 * hidden + 6 * inner)
    sampler = request["max_num_seqs"] * model["vocab"] * card["logit_copies"] * 4
    free = card["usable_bytes"] * request["gpu_memory_utilization"] - weights - workspace - sampler
    free = max(0, int(free) - card["graph_bytes"] - card["other_bytes"])
    pages = max(0, free // (16 * token) - 1) if request["context_tokens"] <= model["max_position"] else 0
    at_once = min(request["max_num_seqs"], pages // -(-request["context_tokens"] // 16))
    return {
        "weights_bytes": weights,
        "kv_bytes_per_token": token,
        "kv_bytes": free,
        "max_concurrent": at_once,
        "fits": at_once > 0,
        "replicas": -(-request["users"] // at_once) if at_once else 0,
    }


def choose(workload, offer, machine):
    """Return the cheapest pattern."""
    count, hourly = workload["requests_per_month"], machine["usd_per_hour"]
    tokens = {"input": workload["prompt_tokens"], "output": workload["output_tokens"]}
    found = {
        "managed API": sum(offer[f"usd_per_million_{kind}"] * number * count / 1e6 for kind, number in tokens.items()),
        "one model": 730 * hourly * max(1, ceil(workload["peak_requests_per_s"] / machine["goodput_per_s"])),
        "batch": hourly * ceil(count / (3600 * machine["batch_requests_per_s"])),
    }
    found["one model"] += machine["people_usd_per_month"]
    found["batch"] += machine["people_usd_per_month"]
    if not workload["data_may_leave"]:
        del found["managed API"]
    if workload["somebody_waits"]:
        del found["batch"]
    return {"usd_per_month": found, "pattern": sorted(found, key=found.get)[0]}
