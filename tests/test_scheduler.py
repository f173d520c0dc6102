"""The simulator's scheduler against vLLM's own, step by step and without a model; and its rules by hand."""

import functools
import time

import pytest

from llminfra.calc import kvblocks, replica, rng, scheduler, workload

pytestmark = pytest.mark.heavy

TRACES = 200
CLASSES = [
    (caching, tight, chunked, policy, (0,))
    for caching in (False, True)
    for tight in (False, True)
    for chunked in (True, False)
    for policy in scheduler.POLICIES
]
CLASSES += [
    (False, True, chunked, "fcfs", windows) for chunked in (True, False) for windows in ((100,), (0, 48), (0, 48, 200))
]


def trace(seed, caching, tight, chunked, policy, windows):
    """A random trace: requests that arrive in the course of the steps, and an engine's settings."""
    draw = rng.Random(seed)
    shared = {"groups": 3, "shared": 16 * (1 + draw.below(5)) + draw.below(16)} if caching else {}
    requests = workload.requests(
        25,
        ("exponential", 20 + draw.below(200), 700),
        ("exponential", 5 + draw.below(40), 120),
        seed=seed,
        urgent_share=0.3,
        **shared,
    )
    arrivals = [0]
    for _ in requests[1:]:
        arrivals.append(arrivals[-1] + draw.below(3) * draw.below(5))
    max_num_seqs = 2 + draw.below(15)
    budget = max([64, 128, 256, 512][draw.below(4)] if chunked else 1024, max_num_seqs)
    needed = max(-(-(request.prompt + request.output) // 16) for request in requests)
    blocks = len(windows) * (needed + draw.below(needed) if tight else 16 * needed)
    return (
        requests,
        arrivals,
        replica.settings(
            {
                "max_num_seqs": max_num_seqs,
                "max_num_batched_tokens": budget,
                "chunked_prefill": chunked,
                "prefix_caching": caching,
                "policy": policy,
                "windows": windows,
                "blocks": blocks,
            }
        ),
    )


def ours(requests, arrivals, settings):
    """Every step of the simulator's scheduler: a dict of request to tokens; and how often one gave way."""
    made = scheduler.Scheduler(settings, kvblocks.BlockPool(settings["blocks"], settings["block_tokens"]))
    steps, coming, preemptions = [], 0, 0
    while coming < len(requests) or made.waiting or made.running:
        while coming < len(requests) and arrivals[coming] <= len(steps):
            sequence = scheduler.Sequence(coming, requests[coming])
            sequence.arrival_ns = coming
            made.add(sequence)
            coming += 1
        step = made.schedule()
        preemptions += len(made.preempted)
        steps.append({sequence.number: sequence.part for sequence in step})
        for sequence in made.update(step):
            if sequence.tokens == sequence.last:
                made.remove(sequence)
                made.free(sequence)
    assert made.pool.used == 0
    return steps, preemptions


@functools.cache
def shipped():
    """The engine's configuration of the shipped model, made once: it takes longer than a trace."""
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig

    from llminfra import models

    limits = {"max_num_seqs": 16, "max_num_batched_tokens": 1024, "max_model_len": 1024}
    return VllmConfig(
        scheduler_config=SchedulerConfig(**limits, is_encoder_decoder=False, async_scheduling=False),
        model_config=ModelConfig(model=str(models.ready("cpu")), dtype="float32", seed=0, max_model_len=1024),
        cache_config=CacheConfig(block_size=16, gpu_memory_utilization=0.9),
    )


def configuration(settings):
    """The engine's configuration with a trace's settings."""
    config = shipped()
    config.scheduler_config.max_num_seqs = settings["max_num_seqs"]
    config.scheduler_config.max_num_batched_tokens = settings["max_num_batched_tokens"]
    config.scheduler_config.enable_chunked_prefill = settings["chunked_prefill"]
    config.scheduler_config.policy = settings["policy"]
    config.cache_config.enable_prefix_caching = settings["prefix_caching"]
    config.cache_config.num_gpu_blocks = settings["blocks"] + 1  # the null block
    return config


def token(request, number, place):
    """The id of a request's token: of its group's prefix, or one that no other request has at this place."""
    if request.group >= 0 and place < request.shared:
        return 1 + request.group
    return 1000 + number


def theirs(requests, arrivals, settings):
    """Every step of vLLM's scheduler, driven with outputs of our own instead of a model's."""
    import torch
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request
    from vllm.v1.structured_output import StructuredOutputManager

    config = configuration(settings)
    shape = {"block_size": 16, "num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    groups = [
        KVCacheGroupSpec(
            [f"layer {group}"],
            SlidingWindowSpec(**shape, sliding_window=window) if window else FullAttentionSpec(**shape),
        )
        for group, window in enumerate(settings["windows"])
    ]
    made = Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(settings["blocks"] + 1, [], groups),
        structured_output_manager=StructuredOutputManager(config),
        block_size=16,
        log_stats=False,
    )
    init_none_hash(sha256)
    hasher = get_request_block_hasher(16, sha256)
    steps, coming = [], 0
    while coming < len(requests) or made.has_unfinished_requests():
        while coming < len(requests) and arrivals[coming] <= len(steps):
            request = requests[coming]
            made.add_request(
                Request(
                    request_id=f"{coming:04d}",
                    prompt_token_ids=[token(request, coming, place) for place in range(request.prompt)],
                    sampling_params=SamplingParams(max_tokens=request.output, ignore_eos=True),
                    pooling_params=None,
                    arrival_time=float(coming),
                    priority=request.priority,
                    block_hasher=hasher,
                )
            )
            coming += 1
        step = made.schedule()
        parts = dict(step.num_scheduled_tokens)
        steps.append({int(name): part for name, part in parts.items()})
        sampled = []
        for name in parts:
            request = made.requests[name]
            sampled.append([1000 + int(name)] if request.num_computed_tokens >= request.num_tokens else [])
        places = {name: place for place, name in enumerate(parts)}
        made.update_from_output(step, ModelRunnerOutput(list(parts), places, sampled))
    return steps


@pytest.mark.parametrize("kind", CLASSES, ids=str)
def test_every_step_is_that_of_vllm(kind, covered):
    began, steps, preemptions = time.monotonic(), 0, 0
    for seed in range(TRACES):
        given = trace(1000 + seed, *kind)
        made, gave_way = ours(*given)
        real = theirs(*given)
        differing = [place for place, pair in enumerate(zip(made, real, strict=False)) if pair[0] != pair[1]]
        assert made == real, (
            f"trace {seed}: {len(made)} and {len(real)} steps, {gave_way} preemptions; first differing: {differing[:1]}, "
            f"ours {made[differing[0]] if differing else ''}, vLLM's {real[differing[0]] if differing else ''}"
        )
        steps += len(made)
        preemptions += gave_way
    assert preemptions > 50 if kind[1] else not preemptions
    covered(
        "scheduler",
        f"{kind}: {TRACES} traces, {steps} steps, {preemptions} preemptions, none differs, {time.monotonic() - began:.1f} s",
    )


# By hand.


def made(blocks, *requests, **given):
    """A scheduler with these requests (prompt, output, and what else a Request holds), all queued."""
    settings = replica.settings({"blocks": blocks, "block_tokens": 4, **given})
    built = scheduler.Scheduler(settings, kvblocks.BlockPool(blocks, 4))
    for number, (prompt, output, *more) in enumerate(requests):
        priority, group, shared = more or (1, -1, 0)
        built.add(scheduler.Sequence(number, workload.Request(number, prompt, output, priority, group, shared)))
    return built


def run(built, steps):
    """What so many steps process: (request, tokens) of each."""
    told = []
    for _ in range(steps):
        step = built.schedule()
        told.append([(sequence.number, sequence.part) for sequence in step])
        built.update(step)
    return told


def test_running_sequences_come_first_and_a_prompt_gets_what_they_leave():
    built = made(20, (5, 9), (12, 9), max_num_batched_tokens=8)
    assert run(built, 3) == [[(0, 5), (1, 3)], [(0, 1), (1, 7)], [(0, 1), (1, 2)]]


def test_a_whole_prompt_waits_for_a_step_that_holds_it():
    built = made(20, (5, 9), (6, 9), max_num_batched_tokens=8, chunked_prefill=False)
    assert run(built, 2) == [[(0, 5)], [(0, 1), (1, 6)]]


def test_a_request_is_admitted_when_its_whole_prompt_has_a_place():
    built = made(4, (8, 3), (12, 3), max_num_batched_tokens=16)
    assert run(built, 1) == [[(0, 8)]]  # two blocks are free: enough for the first 8 tokens of 12, not for all


def test_the_last_one_admitted_gives_way_and_nobody_is_admitted_in_that_step():
    built = made(4, (8, 9), (7, 9), (1, 1))
    assert run(built, 1) == [[(0, 8), (1, 7)]]
    assert run(built, 1) == [[(0, 1)]] and [victim.number for victim, _ in built.preempted] == [1]
    assert built.running[0].number == 0 and built.waiting[0][1].number == 1


def test_with_priorities_the_least_urgent_gives_way_and_its_tokens_return_to_the_budget():
    built = made(4, (7, 9, 2, -1, 0), (8, 9, 0, -1, 0), policy="priority")
    assert run(built, 1) == [[(1, 8), (0, 7)]]
    assert run(built, 1) == [[(1, 1)]] and [victim.number for victim, _ in built.preempted] == [0]


def test_a_prefix_is_found_within_the_step_that_computes_it():
    built = made(20, (9, 2, 1, 0, 8), (9, 2, 1, 0, 8), prefix_caching=True)
    assert run(built, 1) == [[(0, 9), (1, 1)]] and built.hit_tokens == 8


def test_the_last_token_of_a_prompt_is_computed_even_if_all_its_blocks_are_known():
    built = made(20, (8, 1, 1, 0, 8), (8, 1, 1, 0, 8), prefix_caching=True)
    assert run(built, 1) == [[(0, 8), (1, 4)]]


def test_what_a_window_has_passed_is_given_back():
    built = made(40, (30, 4), windows=(10,), max_num_batched_tokens=12)
    held = []
    for _ in range(4):
        built.update(built.schedule())
        held.append(built.pool.used)
    # Before each step 0, 12, 24 and 30 tokens are computed: the window has passed 0, 0, 3 and 5 blocks of those taken.
    assert held == [3, 6, 5, 3]


def test_what_a_request_shares_ends_with_its_prompt():
    built = made(40, (9, 9, 1, 0, 16), (17, 1, 1, 0, 16), prefix_caching=True, max_num_seqs=1)
    run(built, 9)
    first = built.running[0]
    built.remove(first), built.free(first)
    assert run(built, 1) == [[(1, 9)]] and built.hit_tokens == 8  # not what the first one generated


def test_blocks_with_known_content_are_handed_out_last():
    pool = kvblocks.BlockPool(6, 4)
    pool.take("a", 8), pool.take("b", 8)
    pool.store("a", 0, ["x", "y"])
    a, b = list(pool.tables["a"]), list(pool.tables["b"])
    pool.release("a"), pool.release("b")
    assert pool.take("c", 24) and pool.tables["c"] == [b[1], b[0], 4, 5, a[1], a[0]]
    assert pool.find(["x"]) == []
