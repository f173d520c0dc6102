"""What fits and what it costs, held against the course's planner."""

import math

import pytest

from llminfra.calc import memory, tables
from llminfra.grade import judge, judge_equal

SHARE = 0.01
"""Of the weights, that a submission may be off."""

ASKED = (
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate",
    "vocab",
    "tied_embeddings",
    "max_position",
)
FAMILIES = (
    "Qwen2.5-1.5B-Instruct",
    "Qwen2.5-7B-Instruct",
    "Qwen2.5-3B-Instruct",
    "Llama-3-8B",
    "TinyLlama-1.1B-Chat-v1.0",
)
FAMILIES += (
    "Qwen3-4B",
    "SmolLM2-1.7B-Instruct",
    "Mistral-7B-Instruct-v0.3",
    "Qwen2.5-14B-Instruct",
    "Llama-3.2-3B-Instruct",
)


@pytest.fixture
def call(submission):
    with submission.process() as call:
        yield call


def invented(draw):
    """Return a model that nobody has published, of a family that somebody has."""
    m = dict(tables.model(draw.choice(FAMILIES)))
    m["name"] = f"invented-{draw.randrange(1000)}"
    m["layers"] = draw.randrange(16, 40)
    m["kv_heads"] = draw.choice([2, 4, 8])
    m["heads"] = m["kv_heads"] * draw.randrange(2, 8)
    m["head_dim"] = draw.choice([64, 96, 128])
    m["hidden"] = 128 * draw.randrange(10, 32)
    m["intermediate"] = 256 * draw.randrange(16, 60)
    return m


def drawn(draw, **values):
    """Return a request: precision, lengths, limits of the engine, users."""
    found = {
        "precision": draw.choice(["fp16", "int4"]),
        "context_tokens": draw.randrange(300, 8000),
        "max_num_seqs": draw.choice([64, 128, 256]),
        "max_num_batched_tokens": draw.choice([2048, 4096]),
        "gpu_memory_utilization": draw.randrange(80, 95) / 100,
        "users": draw.randrange(1, 900),
    }
    return {**found, **values}


def planned(m, g, request, weights):
    """Return the bytes that are left for the cache, by calc, were the weights so many bytes."""
    names = ("context_tokens", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
    part = memory.plan(m, g, request["precision"], **{name: request[name] for name in names})
    others = sum(part[name] for name in ("activation_bytes", "lora_bytes", "graph_bytes", "other_bytes"))
    if weights == part["weights_bytes"] and request["context_tokens"] <= m["max_position"]:
        assert held(m, request, part["kv_bytes"]) == part["max_concurrent"], "what is expected is not the planner's"
    return max(0, part["budget_bytes"] - others - weights)


def held(m, request, kv_bytes):
    """Return how many requests a cache of so many bytes holds, by calc."""
    blocks = max(0, memory.cache_blocks(m, kv_bytes, "fp16") - 1)
    fit = min(blocks // memory.kv_blocks(request["context_tokens"]), request["max_num_seqs"])
    return fit if request["context_tokens"] <= m["max_position"] else 0


def compared(call, m, request, card="t4"):
    """Judge one plan, and return how many requests are held."""
    g = tables.gpu(card)
    assumed = {name: tables.assumption(name)["value"] for name in ("logit_copies", "graph_bytes", "other_bytes")}
    seen = call(
        "sizing:plan", {name: m[name] for name in ASKED}, {"usable_bytes": g["usable_bytes"], **assumed}, request
    )
    wanted = ("weights_bytes", "kv_bytes_per_token", "kv_bytes", "max_concurrent", "fits", "replicas")
    whole = isinstance(seen, dict) and all(isinstance(seen.get(name), int | float) for name in wanted)
    judge(whole, given=m["name"], seen=seen, expected=f"a dictionary of numbers: {', '.join(wanted)}")
    weights = memory.weights_bytes(m, request["precision"])
    planned(m, g, request, weights)  # held against the planner there
    shown = {name: m[name] for name in ASKED}
    given = f"{m['name']} {shown} on a card of {g['usable_bytes']} bytes, {request}"
    judge(
        abs(seen["weights_bytes"] / weights - 1) <= SHARE,
        given=f"weights_bytes: {given}",
        seen=seen["weights_bytes"],
        expected=f"{weights}, or 1 % more or less",
    )
    judge_equal(seen["kv_bytes_per_token"], memory.kv_bytes_per_token(m), given=f"kv_bytes_per_token: {given}")
    left = planned(m, g, request, seen["weights_bytes"])
    judge(
        abs(seen["kv_bytes"] - left) < 1,
        given=f"kv_bytes with weights of {seen['weights_bytes']} bytes: {given}",
        seen=seen["kv_bytes"],
        expected=left,
    )
    fit = held(m, request, seen["kv_bytes"])
    replicas = math.ceil(request["users"] / fit) if fit else 0
    judge_equal(
        [seen["max_concurrent"], seen["fits"], seen["replicas"]],
        [fit, fit > 0, replicas],
        given=f"max_concurrent, fits, replicas with a cache of {seen['kv_bytes']} bytes: {given}",
    )
    return fit


def test_r11_real_models(call, draw):
    for name in (*draw.sample(FAMILIES, 4), "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"):
        compared(call, tables.model(name), drawn(draw))
    for tokens in (16, draw.randrange(300, 8000)):
        request = drawn(draw, precision="fp16", context_tokens=tokens)
        fit = compared(call, tables.model("Qwen2.5-7B-Instruct"), request)
        assert fit == 0, "7B in 16 bits fits on no T4"


def test_r11_invented_models(call, draw):
    for _ in range(6):
        compared(
            call,
            invented(draw),
            drawn(draw, precision=draw.choice(["fp16", "int4", "int4"])),
            draw.choice(["t4", "t4", "a10g"]),
        )
    small = dict(tables.model("TinyLlama-1.1B-Chat-v1.0"))
    small["name"], small["layers"] = "a small one", draw.randrange(6, 12)
    few = drawn(draw, context_tokens=draw.randrange(30, 60), max_num_seqs=draw.randrange(20, 60))
    judge_equal(compared(call, small, few), few["max_num_seqs"], given="short requests: held, bounded by max_num_seqs")
    for tokens in (16, 17, 16 * draw.randrange(3, 9)):
        # A card whose cache ends up with some hundred blocks: one block more or less is seen.
        tight = drawn(draw, context_tokens=tokens, max_num_seqs=1024, precision="fp16", max_num_batched_tokens=2048)
        block = memory.kv_bytes_per_token(small) * 16
        none = {**tables.gpu("t4"), "usable_bytes": 10**15}
        taken = 10**15 * tight["gpu_memory_utilization"] - planned(
            small, none, tight, memory.weights_bytes(small, "fp16")
        )
        usable = (taken + block * draw.randrange(400, 600)) / tight["gpu_memory_utilization"]
        compared(call, small, tight, {**tables.gpu("t4"), "usable_bytes": int(usable)})
    one = {**drawn(draw, context_tokens=16, max_num_seqs=1, precision="fp16"), "gpu_memory_utilization": 0.9}
    compared(call, small, one)
    limit = small["max_position"]
    for tokens in (limit, limit + draw.randrange(1, 500)):
        compared(call, small, drawn(draw, context_tokens=tokens, precision="fp16"))


def test_r12_patterns(call, draw):
    chosen = set()
    cases = [(stays, waits) for stays in (False, True) for waits in (False, True)] * 4
    for number, (leave, waits) in enumerate(cases):
        workload = {
            "requests_per_month": round(10 ** draw.uniform(3, 8)),
            "peak_requests_per_s": draw.choice([0.2, 3.0, draw.uniform(0.5, 60)]),
            "prompt_tokens": draw.randrange(50, 4000),
            "output_tokens": draw.randrange(10, 600),
            "data_may_leave": leave,
            "somebody_waits": waits,
        }
        offer = {
            "usd_per_million_input": draw.randrange(2, 300) / 100,
            "usd_per_million_output": draw.randrange(5, 900) / 100,
        }
        machine = {
            "usd_per_hour": draw.randrange(30, 400) / 100,
            "people_usd_per_month": draw.choice([0, draw.randrange(100, 4000)]),
            "goodput_per_s": draw.randrange(10, 80) / 10,
        }
        machine["batch_requests_per_s"] = machine["goodput_per_s"] * draw.randrange(11, 40) / 10
        if number < 2:  # exactly three machines' worth, and a year's batch
            workload["peak_requests_per_s"] = machine["goodput_per_s"] * 3
            workload["requests_per_month"] = draw.randrange(4 * 10**8, 10**9)
        elif number < 4:
            workload["peak_requests_per_s"] = 0.0
        costs = {}
        if leave:
            a_request = workload["prompt_tokens"] * offer["usd_per_million_input"]
            a_request += workload["output_tokens"] * offer["usd_per_million_output"]
            costs["managed API"] = workload["requests_per_month"] * a_request / 1e6
        machines = max(1, math.ceil(workload["peak_requests_per_s"] / machine["goodput_per_s"]))
        costs["one model"] = machines * 730 * machine["usd_per_hour"] + machine["people_usd_per_month"]
        if not waits:
            hours = math.ceil(workload["requests_per_month"] / (3600 * machine["batch_requests_per_s"]))
            costs["batch"] = hours * machine["usd_per_hour"] + machine["people_usd_per_month"]
        given = {"workload": workload, "offer": offer, "machine": machine}
        seen = call("sizing:choose", workload, offer, machine)
        priced = seen.get("usd_per_month") if isinstance(seen, dict) else None
        number = isinstance(priced, dict) and all(isinstance(one, int | float) for one in priced.values())
        judge(
            number and "pattern" in seen,
            given=given,
            seen=seen,
            expected="usd_per_month, dollars by pattern, and pattern",
        )
        judge(
            sorted(priced) == sorted(costs)
            and all(math.isclose(priced[name], costs[name], rel_tol=1e-9) for name in costs),
            given=given,
            seen=priced,
            expected=costs,
        )
        cheapest = min(costs, key=lambda name: costs[name])
        judge_equal(seen["pattern"], cheapest, given=given)
        chosen.add(cheapest)
