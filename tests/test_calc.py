"""The course's arithmetic: figures that can be checked by hand, what must hold for any, and where values come from."""

import ast
import json
import math
from datetime import date
from pathlib import Path

import pytest

from llminfra.calc import calibration, cost, lora, memory, parallel, planner, rng, roofline, tables

SHEET = {"compute_efficiency": 1, "memory_efficiency": 1, "layer_launch_s": 0}
"""A step at the sheet's rates."""
CALC = Path(tables.__file__).parent
WEB = CALC.with_name("web")


# What can be checked by hand.


@pytest.mark.parametrize(("gpu", "ridge"), [("t4", 203), ("l4", 403), ("a100-80gb", 153), ("h100", 295), ("h200", 206)])
def test_ridge_points(gpu, ridge):
    assert round(roofline.ridge_flop_per_byte(gpu, "fp16")) == ridge


@pytest.mark.parametrize(
    ("gpu", "tokens_per_s"),
    [
        ("t4", 24.2),
        ("l4", 22.7),
        ("a10g", 45.4),
        ("a100-40gb", 117.7),
        ("a100-80gb", 154.3),
        ("h100", 253.5),
        ("h200", 363.2),
    ],
)
def test_decode_ceiling_of_llama_2_7b(gpu, tokens_per_s):
    # Of the input embedding, 32,000 x 4,096, a step reads one row.
    assert memory.weights_bytes("Llama-2-7B", "fp16") == 6_738_415_616 * 2
    assert memory.weights_read_bytes("Llama-2-7B", "fp16", 1) == (6_738_415_616 - 32_000 * 4_096) * 2
    assert round(roofline.decode_ceiling_per_s("Llama-2-7B", gpu, "fp16"), 1) == tokens_per_s


def test_kv_bytes_per_token():
    assert memory.kv_bytes_per_token("Llama-2-7B") == 512 * 1024
    assert memory.kv_bytes_per_token("Llama-3-8B") == 128 * 1024
    assert memory.kv_bytes_per_token("Llama-3-70B") == 320 * 1024
    assert memory.kv_bytes_per_token("LLaMA-13B") == 819_200
    assert round(memory.kv_bytes_per_token("LLaMA-13B") * 2048 / 1e9, 2) == 1.68
    assert memory.kv_bytes_per_token("Llama-3-8B", "fp8") == 64 * 1024


def test_the_scaling_books_critical_batch():
    # JAX scaling book, chapter 7: 240 tokens on a TPU v5e in bf16, half as many with weights in int8 multiplied in bf16.
    rates = {"bf16": 197e12, "int8": 197e12}
    tpu = {"name": "TPU v5e", "rates": rates, "bandwidth_bytes_per_s": 819e9}
    assert round(roofline.ridge_flop_per_byte(tpu, "bf16")) == 241
    assert roofline.critical_batch("Llama-3-70B", tpu, "bf16") == pytest.approx(
        240, rel=0.03
    )  # the embedding is read, not multiplied
    assert roofline.critical_batch("Llama-3-70B", tpu, "int8") == pytest.approx(120, rel=0.06)


def test_an_a100s_prefill_and_decode_as_kipply_counts_them():
    # Transformer Inference Arithmetic, 2022: a step of 2 P FLOP per token, 2 P bytes of weights in fp16.
    step = roofline.decode_step_s("Llama-2-7B", "a100-40gb", "fp16", 1, 0, **SHEET)
    assert step["linear_s"] + step["head_s"] == pytest.approx(2 * 6_607_343_616 / 1555e9)
    assert step["flop"] == pytest.approx(2 * 6_738_415_616, rel=0.03)


def test_the_parts_of_a_step_by_hand():
    # Llama 3 8B on an A100, 256 sequences of 1,024 tokens: 7.5e9 parameters in the layers at 256 tokens are bound by
    # arithmetic, the head (0.53e9) too, and 256 x 1,024 cached tokens of 131,072 bytes by memory.
    step = roofline.decode_step_s("Llama-3-8B", "a100-80gb", "bf16", 256, 1024, **SHEET)
    layers = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert step["linear_s"] == pytest.approx(256 * 2 * layers / 312e12) and step["linear_bound"] == "compute"
    assert step["head_s"] == pytest.approx(256 * 2 * 128_256 * 4096 / 312e12)
    assert step["attention_s"] == pytest.approx(256 * 1024 * 131_072 / 2039e9)
    assert step["launch_s"] == 0 and step["bound"] == "memory"
    assert step["seconds"] == pytest.approx(step["linear_s"] + step["head_s"] + step["attention_s"])
    launched = roofline.decode_step_s(
        "Llama-3-8B", "a100-80gb", "bf16", 256, 1024, **(SHEET | {"layer_launch_s": 1e-4})
    )
    assert launched["seconds"] - step["seconds"] == pytest.approx(32e-4)


def test_fp8_weights_are_multiplied_in_16_bits_where_a_card_has_no_fp8():
    assert roofline.rate_flop_per_s("a100-80gb", "fp8") == roofline.rate_flop_per_s("a100-80gb", "bf16")
    assert roofline.rate_flop_per_s("h100", "fp8") == 2 * roofline.rate_flop_per_s("h100", "bf16") + 1e12
    one, two = [
        roofline.decode_step_s("Llama-3-8B", "a100-80gb", kind, 1, 0, **SHEET)["linear_s"] for kind in ("fp8", "bf16")
    ]
    assert one == pytest.approx(two / 2, rel=0.01)


def test_the_first_token_waits_for_the_way_and_for_all_prompts_of_a_burst():
    alone = roofline.prefill_s("Llama-3-8B", "h100", "bf16", 1024)["seconds"]
    assert roofline.ttft_s("Llama-3-8B", "h100", "bf16", 1024, request_s=0.5) == pytest.approx(0.5 + alone)
    plan = planner.plan("Llama-3-8B", "h100", "bf16", 1280, 16, output_tokens=256)
    assert plan["ttft_burst_s"] == pytest.approx(plan["ttft_s"] + 15 * alone)


def test_latent_attention_keeps_576_values_a_layer():
    # DeepSeek-V2 (2405.04434), section 2.1: 512 of the compressed vector and 64 of its rotary part.
    m = tables.model("DeepSeek-R1")
    assert memory.kv_bytes_per_token("DeepSeek-R1", "bf16") == m["layers"] * 576 * 2
    assert memory.kv_bytes_per_token("DeepSeek-R1", "fp8") == m["layers"] * 576


def test_a_window_bounds_the_cache():
    m = tables.model("Mistral-7B-v0.1")
    assert m["window"] == 4096 and m["window_layers"] == m["layers"]
    per_token = memory.kv_bytes_per_token(m)
    assert memory.kv_bytes(m, 4096) == 4096 * per_token == memory.kv_bytes(m, 32768)
    half = tables.model("gemma-2-9b")
    assert memory.kv_bytes(half, 2 * half["window"]) == 1.5 * half["window"] * memory.kv_bytes_per_token(half)
    # Resident are the window and what two steps of 2,048 tokens add to it: 8,191 tokens, however long the request.
    at_once = [memory.plan(m, "a100-80gb", "fp16", tokens)["max_concurrent"] for tokens in (4096, 8192, 32768)]
    assert at_once[0] > at_once[1] == at_once[2]


def test_few_tokens_read_few_experts_and_many_read_all():
    m = tables.model("Mixtral-8x7B-Instruct-v0.1")
    counts = memory.parameters(m)
    looked_up = 2 * counts["embedding"]  # a token's row of it, which does not count
    assert memory.weights_read_bytes(m, "fp16", 1) == pytest.approx(2 * counts["active"] - looked_up)
    reads = [memory.weights_read_bytes(m, "fp16", tokens) for tokens in (1, 2, 4, 8, 16, 64, 1024)]
    assert reads == sorted(reads) and reads[-1] == pytest.approx(memory.weights_bytes(m, "fp16") - looked_up)
    tied = "Qwen2.5-1.5B-Instruct"  # its embedding is the head too
    assert memory.weights_read_bytes(tied, "int4", 1) == memory.weights_bytes(tied, "int4")


def test_lora_parameters_of_llama_2_7b():
    trained = lora.parameters("Llama-2-7B", 8, ("q", "v"))
    assert trained == 4_194_304
    assert round(100 * trained / memory.parameters("Llama-2-7B")["total"], 3) == 0.062


def test_the_counted_parameters_are_the_published_ones():
    for name in tables.models():
        assert memory.parameters(name)["total"] == tables.model(name)["parameters"], name


def test_the_shipped_model_is_the_one_described():
    gguf = pytest.importorskip("gguf")
    from llminfra import models

    reader = gguf.GGUFReader(models.packaged_weights() / models.GGUF)
    told = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    m = tables.model("SmolLM2-135M-Instruct")
    assert m["layers"] == told["llama.block_count"]
    assert m["hidden"] == told["llama.embedding_length"]
    assert m["heads"] == told["llama.attention.head_count"]
    assert m["kv_heads"] == told["llama.attention.head_count_kv"]
    assert m["head_dim"] == told["llama.rope.dimension_count"]
    assert m["intermediate"] == told["llama.feed_forward_length"]
    assert m["vocab"] == told["llama.vocab_size"]
    assert m["max_position"] == told["llama.context_length"]
    assert m["parameters"] == sum(int(tensor.n_elements) for tensor in reader.tensors)


def test_dollars_per_million_tokens():
    assert cost.usd_per_million_tokens(3.60, 1000) == pytest.approx(1.0)
    assert cost.usd_per_million_tokens(3.60, 1000, utilisation=0.25) == pytest.approx(4.0)
    assert cost.break_even_tokens_per_s(3.60, 1.0) == pytest.approx(1000)


# What must hold.


def test_two_gpus_share_weights_cache_and_arithmetic_and_pay_the_link():
    one = roofline.decode_step_s("Llama-3-70B", "h100", "fp8", 32, 2048)
    two = roofline.decode_step_s("Llama-3-70B", "h100", "fp8", 32, 2048, tensor_parallel=2)
    for part in ("linear_s", "head_s", "attention_s"):
        assert two[part] == pytest.approx(one[part] / 2)
    assert one["link_s"] == 0 < two["link_s"]
    assert one["seconds"] / 2 < two["seconds"] < one["seconds"]
    # Over PCIe the same all-reduce takes longer, and a long prompt moves more.
    assert roofline.all_reduce_s("l4", 1e6, 2) > roofline.all_reduce_s("h100", 1e6, 2)
    assert (
        roofline.all_reduce_s("h100", 2e6, 4)
        > roofline.all_reduce_s("h100", 1e6, 4)
        > roofline.all_reduce_s("h100", 1e6, 2)
    )


@pytest.mark.parametrize("tensor_parallel", [2, 4, 8])
def test_more_gpus_hold_more_requests(tensor_parallel):
    few = memory.plan("Llama-3-70B", "a100-80gb", "bf16", 4096, tensor_parallel=tensor_parallel // 2)
    more = memory.plan("Llama-3-70B", "a100-80gb", "bf16", 4096, tensor_parallel=tensor_parallel)
    assert more["max_concurrent"] > few["max_concurrent"]
    assert more["weights_bytes"] == -(-few["weights_bytes"] // 2)


def test_key_value_heads_are_repeated_once_there_are_fewer_than_gpus():
    assert parallel.share("Qwen2.5-7B-Instruct", 4) == 0.25  # 4 of 28 heads
    assert parallel.share("Llama-3-8B", 16) == 1 / 8  # each head on two GPUs
    assert parallel.share("DeepSeek-R1", 8) == 1


def test_a_step_is_the_same_to_the_simulator():
    seconds = roofline.step_time("Llama-3-8B", "a100-80gb", "bf16")
    step = roofline.decode_step_s("Llama-3-8B", "a100-80gb", "bf16", 16, 1000)
    assert seconds(16, 16, 16_000, 16_000) == step["seconds"]
    prefill = roofline.prefill_s("Llama-3-8B", "a100-80gb", "bf16", 1000)
    assert seconds(1000, 1, 500_000, 1000) == prefill["seconds"]


def test_a_plan_for_users_adds_up():
    for name in ("Qwen2.5-7B-Instruct", "Mixtral-8x7B-Instruct-v0.1", "Mistral-7B-v0.1"):
        for row in planner.compare(name, "int4", 4096, 50):
            if not row["fits"]:
                assert row["why"] and not row.get("replicas") and row.get("ttft_s") is None
                continue
            assert row["why"] == "" and (row["replicas"] - 1) * row["max_concurrent"] < 50
            assert row["replicas"] * row["max_concurrent"] >= 50 and row["batch"] * row["replicas"] >= 50
            assert row["tokens_per_s"] < 50 / row["itl_s"]
            if not tables.prices(row["gpu"]):
                assert row["usd_per_million_output_tokens"] is None and row["usd_per_hour"] is None
                continue
            usd = row["usd_per_million_output_tokens"] * row["tokens_per_s"] * 3600 / 1e6
            assert usd == pytest.approx(row["usd_per_hour"])


def test_more_users_never_need_fewer_gpus_or_pay_more_a_token():
    rows = [planner.plan("Qwen2.5-7B-Instruct", "a10g", "bf16", 4096, users) for users in range(1, 200, 9)]
    gpus = [row["gpus"] for row in rows]
    assert gpus == sorted(gpus)
    on_one = [row["usd_per_million_output_tokens"] for row in rows if row["gpus"] == 1]
    assert on_one == sorted(on_one, reverse=True)


def test_what_does_not_fit_says_what_would():
    row = planner.plan("Llama-3-70B", "h100", "fp16", 4096, 8)
    assert not row["fits"] and row["usd_per_hour"] is None
    assert row["why"] == "its weights take 131.4 GiB, and a GPU has 72.8 to give; over 2 GPUs it fits"
    assert planner.plan("Llama-3-70B", "h100", "fp16", 4096, 8, tensor_parallel=2)["fits"]
    refused = [row for row in planner.compare("Qwen2.5-7B-Instruct", "bf16", 4096, 8) if row["gpu"] == "t4"]
    assert "Bfloat16 is only supported on GPUs with compute capability of at least 8.0" in refused[0]["why"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("A10G", "a10g"),
        ("NVIDIA L4", "l4"),
        ("RTX 4090", "rtx4090"),
        ("H100 SXM", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("A100-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
    ],
)
def test_a_card_is_found_as_people_write_it(written, name):
    assert tables.gpu(written)["name"] == name


@pytest.mark.parametrize(
    ("written", "name", "precision"),
    [
        ("Qwen/Qwen3-8B-AWQ", "Qwen3-8B", "int4"),
        ("Qwen3-8B-FP8", "Qwen3-8B", "fp8"),
        ("Llama 3.1 8B", "Llama-3.1-8B-Instruct", "bf16"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct", "bf16"),
        ("mistral 7b v0.3", "Mistral-7B-Instruct-v0.3", "bf16"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct", "int4"),
    ],
)
def test_a_model_is_found_as_people_write_it_and_says_its_precision(written, name, precision):
    assert tables.model(written)["name"] == name
    assert planner.precision_of(written, "a10g", None) == precision


def test_a_wrong_name_is_refused_with_few_that_are_near():
    with pytest.raises(ValueError, match=r"no model 'Qwen3-9B'; nearest: Qwen3-[48]B") as refused:
        tables.model("Qwen3-9B")
    assert str(refused.value).count(",") == 4


def test_a_replica_of_several_gpus_is_priced_by_machines_that_exist():
    one = planner.plan("Llama-3-8B", "a10g", "bf16", 2048, 64, tensor_parallel=2)
    offers = {"modal": 2 * 1.10 * one["replicas"], "aws": 5.672 * -(-one["replicas"] // 2)}
    assert one["usd_per_hour"] == pytest.approx(min(offers.values()))
    assert one["instance"].startswith(str(one["replicas"])) and one["instance"].endswith("of 2 GPUs")
    eight = planner.plan("Llama-3-70B", "rtx4090", "int4", 2048, 1, tensor_parallel=4)
    assert eight["fits"] and eight["usd_per_hour"] is None, "no machine with four of them is known"


def test_prompts_and_answers_pay_for_the_time_they_take():
    split = cost.usd_per_million_in_and_out(3.60, 10_000, 1000)
    assert split == {"input": pytest.approx(0.1), "output": pytest.approx(1.0)}


def test_building_pays_from_the_break_even_on():
    terms = (1000, 250, 0.2, 0.4, 1.0, 2.0)
    given = {"utilisation": 0.5, "fixed_usd_per_month": 5000}
    even = cost.build_or_buy(1, *terms, **given)["break_even_requests_per_month"]
    below, at = cost.build_or_buy(even * 0.999, *terms, **given), cost.build_or_buy(even, *terms, **given)
    assert below["cheaper"] == "buy" and at["cheaper"] == "build"
    assert at["build_usd"] == pytest.approx(at["buy_usd"])
    assert at["usd_per_request"] == pytest.approx(0.0003)
    dear = cost.build_or_buy(1e6, 1000, 250, 0.001, 0.001, 1.0, 2.0)
    assert dear["break_even_requests_per_month"] is None and dear["cheaper"] == "buy"


def test_a_fit_finds_the_prices_it_was_made_with():
    draw = rng.Random(3)
    made = {"step": 2e-3, "first": 1e-3, "tokens": 1e-4, "samples": 5e-4, "pairs": 1e-8, "cached": 2e-7}
    steps = []
    for _ in range(60):
        tokens, samples, cached = 1 + draw.below(500 if draw.below(2) else 6), 1 + draw.below(16), draw.below(20_000)
        shape = (tokens, samples, tokens * draw.below(500), cached)
        steps.append((*shape, calibration.step_time(made)(*shape)))
    found = calibration.fit(steps)
    for term in calibration.TERMS:
        assert found[term] == pytest.approx(made[term], rel=1e-3), term
    assert max(abs(error) for error in calibration.residuals(steps, found)) < 1e-3


def test_a_price_that_would_be_negative_is_nought():
    shapes = [(n, 1, 0, 0, 1.0 - 0.001 * n) for n in range(1, 40)]
    found = calibration.fit(shapes)
    assert found["tokens"] == 0 and found["step"] + found["samples"] + 4 * found["first"] > 0.9


@pytest.mark.parametrize("model", tables.models())
@pytest.mark.parametrize("gpu", tables.gpus())
def test_one_stream_without_cache_and_losses_runs_at_the_ceiling(model, gpu):
    step = roofline.decode_step_s(model, gpu, "fp16", 1, 0, **SHEET)
    assert step["bound"] == "memory"
    seconds = 1 / roofline.decode_ceiling_per_s(model, gpu, "fp16")
    seconds += (
        roofline.work(model)["bytes_per_sequence"] / tables.gpu(gpu)["bandwidth_bytes_per_s"]
    )  # linear attention's
    assert step["seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize("gpu", tables.gpus())
def test_the_layers_turn_compute_bound_at_the_critical_batch(gpu):
    batch = roofline.critical_batch("Llama-3-8B", gpu, "fp16")
    for context in (0, 4096):
        assert roofline.decode_step_s("Llama-3-8B", gpu, "fp16", batch, context, **SHEET)["linear_bound"] == "compute"
        assert (
            roofline.decode_step_s("Llama-3-8B", gpu, "fp16", batch - 1, context, **SHEET)["linear_bound"] == "memory"
        )
    assert batch == pytest.approx(roofline.ridge_flop_per_byte(gpu), rel=0.02, abs=1)  # the next whole number


def test_attention_stays_bound_by_memory_however_large_the_batch():
    step = roofline.decode_step_s("Llama-2-7B", "a10g", "fp16", 10_000, 4096)
    assert step["linear_bound"] == "compute" and step["bound"] == "memory"


def test_a_small_model_on_a_fast_card_waits_for_its_kernels():
    assert roofline.decode_step_s("SmolLM2-135M-Instruct", "h100", "bf16", 1, 100)["bound"] == "launch"


def test_more_work_never_takes_less_time():
    for name in ("t4", "a10g", "h100"):
        by_batch = [roofline.decode_step_s("Llama-3-8B", name, "fp16", b, 512)["seconds"] for b in range(1, 600, 7)]
        by_context = [roofline.decode_step_s("Llama-3-8B", name, "fp16", 8, c)["seconds"] for c in range(0, 9000, 500)]
        by_prompt = [roofline.prefill_s("Llama-3-8B", name, "fp16", t)["seconds"] for t in range(1, 4000, 111)]
        for times in (by_batch, by_context, by_prompt):
            assert times == sorted(times)


def test_a_long_prefill_is_compute_bound_and_a_short_one_is_not():
    assert roofline.prefill_s("Llama-3-8B", "a100-80gb", "bf16", 2048)["bound"] == "compute"
    assert roofline.prefill_s("Llama-3-8B", "a100-80gb", "bf16", 8)["bound"] == "memory"


def test_fewer_bits_never_take_more_bytes():
    for name in tables.models():
        of_all = [
            precision for precision in memory.PRECISIONS if precision != "mxfp4"
        ]  # which may leave attention wide
        sizes = [memory.weights_bytes(name, precision) for precision in of_all]
        assert sizes == sorted(sizes, reverse=True)
        assert memory.weights_bytes(name, "fp32") == 4 * tables.model(name)["parameters"]


def test_blocks_hold_their_tokens_and_waste_less_than_one_block():
    for tokens in range(0, 200):
        for block in (1, 16, 32):
            held = memory.kv_blocks(tokens, block) * block
            assert tokens <= held < tokens + block


def test_a_plan_adds_up():
    for model in tables.models():
        for gpu in tables.gpus():
            plan = memory.plan(model, gpu, "fp16", 2048)
            used = sum(plan[part + "_bytes"] for part in ("weights", "activation", "graph", "other"))
            assert plan["kv_bytes"] == max(0, plan["budget_bytes"] - used)
            seqs, _ = memory.server_defaults(gpu)
            assert plan["max_concurrent"] <= min(seqs, plan["concurrency"])
            assert plan["fits"] == (plan["max_concurrent"] >= 1)
            assert plan["kv_tokens"] == int(plan["concurrency"] * 2048)
            if not tables.model(model)["window_layers"] and not tables.model(model)["linear_layers"]:
                assert (plan["blocks"] + 1) * 16 * memory.kv_bytes_per_token(model) <= max(plan["kv_bytes"], 2**24)


def test_longer_requests_and_smaller_shares_never_fit_more():
    at_once = [memory.max_concurrent("Qwen2.5-7B-Instruct", "a10g", "bf16", c) for c in range(256, 32768, 512)]
    assert at_once == sorted(at_once, reverse=True)
    shares = [
        memory.plan("Qwen2.5-7B-Instruct", "a10g", "bf16", 1024, gpu_memory_utilization=u / 100)["kv_tokens"]
        for u in range(50, 101)
    ]
    assert shares == sorted(shares)
    assert not memory.fits("Llama-3-70B", "h100", "bf16", 16)


def test_an_fp8_cache_holds_twice_the_tokens():
    tokens = {kv: memory.plan("Llama-3-8B", "l4", "fp8", 1024, kv_precision=kv)["kv_tokens"] for kv in ("fp16", "fp8")}
    assert tokens["fp8"] == pytest.approx(2 * tokens["fp16"], abs=32)


def test_a_lab_is_never_cheaper_elsewhere():
    sound = [gpu for gpu in tables.gpus() if any(not (r["partial"] or r["unverified"]) for r in tables.prices(gpu))]
    assert len(sound) >= 10
    for gpu in sound:
        best = cost.lab_usd(gpu, 30)
        assert best["usd"] == pytest.approx(best["usd_per_hour"] / 2)
        for row in tables.prices(gpu):
            if not row["partial"] and not row["unverified"]:
                assert best["usd"] <= cost.lab_usd(gpu, 30, row["provider"])["usd"] + 1e-12


def test_whole_instances_are_paid_where_only_they_are_rented():
    assert cost.lab_usd("h100", 60, "aws")["gpus"] == 8
    assert cost.lab_usd("h100", 60, "aws")["usd"] == pytest.approx(55.04)
    assert tables.price("h100", "aws")["usd_per_gpu_hour"] == 6.88


def test_a_price_that_leaves_something_out_does_not_compete():
    assert tables.prices("t4")[0]["provider"] == "gcp"
    assert tables.price("t4")["provider"] == "aws"
    assert "N1" in tables.price("t4", "gcp")["partial"]


# What is refused, and in which words.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tables.gpu("a10x"), "no GPU 'a10x'; nearest: a10, a10g"),
        (lambda: tables.model("Qwen2.5-8B"), "nearest: Qwen3.5-9B, Qwen3-8B, "),
        (lambda: tables.whole("users", 1.5), "users must be a whole number of at least 1, not 1.5"),
        (lambda: tables.price("t4", "azure"), "no price of a t4 from 'azure'.*known: gcp, aws, modal"),
        (lambda: tables.price("gb300"), "no GPU 'gb300'"),
        (lambda: tables.sourced("gpus", "t4", "colour"), "no field of t4 'colour'"),
        (lambda: tables.sourced("prices", "t4", "usd"), "no table 'prices'"),
        (lambda: memory.weights_bytes("Llama-2-7B", "int3"), "no precision 'int3'; nearest: .*int4"),
        (lambda: memory.kv_bytes_per_token("Llama-2-7B", "int4"), "no precision of the cache 'int4'"),
        (lambda: lora.parameters("Llama-2-7B", 8, ("q_proj",)), "no projection 'q_proj'"),
        (lambda: lora.parameters("Llama-2-7B", 0), "rank must be more than 0"),
        (lambda: memory.plan("Llama-2-7B", "t4", "fp16", 0), "context_tokens must be more than 0, not 0"),
        (lambda: memory.plan("Llama-2-7B", "t4", "fp16", 9, gpu_memory_utilization=92), "at most 1, not 92"),
        (lambda: memory.kv_blocks(-1), "tokens must not be negative"),
        (
            lambda: roofline.rate_flop_per_s("t4", "bf16"),
            "t4 multiplies no bf16; it has fp32, fp16, fp8, int8, nvfp4, mxfp4, int4, nf4",
        ),
        (lambda: roofline.ridge_flop_per_byte("t4", "bf16"), "t4 multiplies no bf16"),
        (lambda: roofline.decode_step_s("Llama-2-7B", "t4", "fp16", 0, 1), "batch must be more than 0"),
        (
            lambda: roofline.prefill_s("Llama-2-7B", "t4", "fp16", 1, compute_efficiency=1.2),
            "compute_efficiency must be",
        ),
        (lambda: cost.usd_per_million_tokens(1, 0), "tokens_per_s must be more than 0"),
        (lambda: cost.usd_per_million_tokens(1, math.nan), "tokens_per_s must be more than 0, not nan"),
        (lambda: cost.usd_per_million_tokens(1, 1, utilisation=0), "utilisation must be more than 0"),
        (lambda: cost.lab_usd("t4", 0), "minutes must be more than 0"),
        (
            lambda: memory.plan("Llama-2-7B", "t4", "fp16", 9, tensor_parallel=3),
            "32 attention heads: not divisible by ten",
        ),
        (lambda: parallel.share("phi-4", 4), "10 KV heads: not divisible by tensor_parallel 4"),
        (lambda: parallel.share("Qwen2.5-7B-Instruct", 14), "4 KV heads: not divisible by ten"),
        (lambda: planner.plan("phi-4", "a10g", "fp16", 4096, 8, tensor_parallel=8), "10 KV heads: not divisible"),
        (lambda: lora.parameters("Mixtral-8x7B-Instruct-v0.1", 8), "experts or latent attention"),
        (lambda: planner.plan("Llama-2-7B", "t4", "bf16", 4096, 1), "Bfloat16 is only supported on GPUs"),
        (
            lambda: planner.plan("Llama-2-7B", "t4", "fp16", 4097, 1),
            r"max_model_len \(4097\) is greater than the derived max_model_len \(max_position_embeddings=4096\)",
        ),
        (
            lambda: planner.plan("Llama-2-7B", "t4", "fp16", 4096, 0),
            "users must be a whole number of at least 1, not 0",
        ),
        (lambda: planner.plan("Llama-2-7B", "t4", "fp16", 1, 1), "context_tokens must be at least 2"),
        (
            lambda: planner.plan("Llama-2-7B", "t4", "fp16", 100, 1, 100),
            "output_tokens must be less than context_tokens",
        ),
        (lambda: planner.compare("Llama-2-7B", "fp16", 4097, 1), "max_position_embeddings=4096"),
        (lambda: cost.build_or_buy(1, 1, 1, 1, 1, 1, 0), "replica_requests_per_s must be more than 0"),
        (lambda: calibration.fit([(1, 1, 1, 1, 1.0)]), "1 steps cannot price 6 terms"),
        (lambda: calibration.fit([(1, 1, 1, 1, 0.0)] * 6), "a step's seconds must be more than 0"),
        (lambda: tables.assumption("efficiency"), "no assumption 'efficiency'"),
    ],
)
def test_errors_say_what_and_what_is_known(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_plan_that_does_not_fit_proposes_only_what_the_engine_can_divide():
    # 10 KV heads: vLLM divides them over 2 GPUs, and neither over 4 nor over 8.
    small = {**tables.gpu("t4"), "name": "small", "usable_bytes": 10 * 2**30}
    why = planner.plan("phi-4", small, "fp16", 2048, 1)["why"]
    assert why.endswith("over 8 GPUs as stages of a pipeline it fits")
    assert planner.plan("phi-4", small, "fp16", 2048, 1, pipeline_parallel=8)["fits"]
    tiny = {**small, "usable_bytes": 3 * 2**30}
    assert planner.plan("phi-4", tiny, "fp16", 2048, 1)["why"].endswith("nor does it fit over 8")


def test_what_would_fit_counts_the_settings_that_were_asked_for():
    plain = planner.plan("Llama-3.1-70B-Instruct", "a100-80gb", "bf16", 4096, 1)["why"]
    full = planner.plan("Llama-3.1-70B-Instruct", "a100-80gb", "bf16", 4096, 1, gpu_memory_utilization=0.8)["why"]
    assert plain.endswith("over 2 GPUs it fits") and full.endswith("over 4 GPUs it fits")


@pytest.mark.parametrize("name", ["tensor_parallel", "pipeline_parallel"])
def test_no_gpus_at_all_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        planner.plan("Qwen3-8B", "a10g", "bf16", 4096, 1, **{name: 0})


def test_settings_that_one_gpu_s_defaults_refuse_leave_the_others():
    rows = {row["gpu"]: row for row in planner.compare("Qwen3-8B", "bf16", 4096, 1, max_num_seqs=4096)}
    assert rows["h100"]["fits"] and "must be greater than or equal to max_num_seqs (4096)" in rows["a10g"]["why"]
    assert planner.plan("phi-4", "a10g", "fp16", 2048, 1)["why"].endswith("over 2 GPUs it fits")


def test_a_gpu_of_the_callers_own_is_planned_with_its_own_price_or_none():
    own = {**tables.gpu("h100"), "name": "h100-at-home"}
    unpriced = planner.plan("Llama-3-8B", own, "bf16", 4096, 64)
    known = planner.plan("Llama-3-8B", "h100", "bf16", 4096, 64)
    assert unpriced["tokens_per_s"] == known["tokens_per_s"] and unpriced["gpus"] == known["gpus"]
    assert unpriced["usd_per_hour"] is unpriced["usd_per_million_output_tokens"] is unpriced["provider"] is None
    priced = planner.plan("Llama-3-8B", {**own, "usd_per_gpu_hour": 1.5}, "bf16", 4096, 64)
    assert priced["usd_per_hour"] == 1.5 * priced["gpus"]


def test_a_comparison_takes_a_plan_that_is_made_already():
    asked = ("Llama-3-8B", "bf16", 4096, 64)
    planned = planner.plan(asked[0], "h100", *asked[1:])
    rows = planner.compare(*asked, planned=planned)
    assert rows == planner.compare(*asked) and any(row is planned for row in rows)


# Where it runs, and where the values come from.


@pytest.mark.parametrize("module", sorted([*CALC.glob("*.py"), *WEB.glob("*.py")]), ids=lambda path: path.name)
def test_calc_and_web_stay_pure_enough_for_micropython(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"math", "heapq", "json", "collections"}
        if isinstance(node, ast.ImportFrom):
            ours = node.level == 1 or (node.level == 2 and (node.module or "").partition(".")[0] == "calc")
            assert ours or (node.level == 0 and node.module in ("collections", "heapq", "math"))


def _tables():
    for path in sorted((CALC / "data").glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def test_each_source_has_a_title_an_address_and_a_day():
    for name, table in _tables():
        for key, source in table.get("sources", {}).items():
            assert source["title"] and source["url"].startswith("https://"), f"{name}: {key}"
            assert date(2026, 1, 1) <= date.fromisoformat(source["read"]) <= date.today(), f"{name}: {key}"


def test_each_value_has_a_source_and_each_source_a_value():
    used: dict[str, set[str]] = {}
    for name, table in _tables():
        if name == "assumptions":
            continue  # nobody measured them: each says why it is assumed, and the next test reads that
        rows, used[name] = table[name], set()
        for row in rows if isinstance(rows, list) else rows.values():
            if "source" in row:
                used[name].add(row["source"])
                continue
            assert set(row["values"]) == set(row["from"]), f"{name}: {row['title']}"
            assert set(row["unverified"]) <= set(row["values"]), f"{name}: {row['title']}"
            used[name] |= set(row["from"].values())
        assert used[name] == set(table["sources"]), name


def test_an_assumption_has_a_unit_and_a_reason():
    for name, row in tables.read("assumptions")["assumptions"].items():
        assert tables.assumption(name)["value"] > 0 and row["unit"] and len(row["why"]) > 30, name
        assert row["unverified"] == ("no primary source" in row["why"]), name


def test_there_are_models_enough_of_every_kind():
    known = [tables.model(name) for name in tables.models()]
    free = [m for m in known if not m["gated"]]
    assert len(free) >= 15 and len(free) < len(known)
    assert sum(bool(m["experts"]) for m in free) >= 3 and sum(not m["experts"] for m in free) >= 10
    assert any(m["kv_lora_rank"] for m in free) and any(m["window"] for m in known)


def test_a_model_answers_to_its_published_id():
    for name in tables.models():
        m = tables.model(name)
        for asked in (m["id"], m["id"].split("/")[-1], name.lower(), m["id"].upper()):
            assert tables.model(asked)["parameters"] == m["parameters"], asked


def test_a_value_can_be_traced():
    told = tables.sourced("gpus", "a10g", "rates")
    assert told["value"]["fp16"] == 70e12 and told["unverified"] and told["read"] == "2026-11-23"
    assert not tables.sourced("gpus", "h100", "rates")["unverified"]


def test_gpu_flags_agree_with_rates():
    for name in tables.gpus():
        g = tables.gpu(name)
        assert g["bf16"] == ("bf16" in g["rates"]) and g["fp8"] == ("fp8" in g["rates"])
        assert g["flash_attention_2"] == (float(g["capability"]) >= 8.0)
        assert g["usable_bytes"] < g["memory_bytes"] * 1.08


def test_prices_are_plausible_and_known():
    for gpu in tables.gpus():
        for row in tables.prices(gpu):
            assert 0.1 < row["lowest_usd"] <= row["usd_per_gpu_hour"] < 20
            assert row["gpus_per_instance"] in (1, 4, 8)


def test_linear_attention_keeps_a_state_and_no_tokens():
    """Qwen3-Next: 12 of 48 layers cache tokens, the others a state of 1 MiB and the inputs of a convolution."""
    m = tables.model("Qwen3-Next-80B-A3B-Instruct")
    assert memory.kv_bytes_per_token(m) == 12 * 2 * 2 * 256 * 2
    assert memory.state_bytes(m) == 2**20 + 3 * 8192 * 2
    assert memory.kv_bytes(m, 1000) - memory.kv_bytes(m, 0) == 1000 * memory.kv_bytes_per_token(m)
    assert memory.kv_bytes(m, 0) == 36 * memory.state_bytes(m)
    assert memory.hybrid_block_tokens(m, "fp16") == 544  # github.com/vllm-project/vllm/pull/32492
    assert memory.state_bytes("Qwen3-8B") == 0 and memory.hybrid_block_tokens("Qwen3-8B", "fp16") == 16
    near, far = (roofline.decode_step_s(m, "h200", "fp8", 32, context)["attention_s"] for context in (0, 100_000))
    assert 0 < near < far / 10


def test_a_replica_is_priced_by_what_is_rented_by_the_hour():
    """A 3090 is known from a verified price of serverless workers and a cheaper, unverified one of pods."""
    assert {(row["kind"], row["unverified"]) for row in tables.prices("rtx3090")} == {
        ("serverless", False),
        ("pod", True),
    }
    plan = planner.plan("Qwen3-8B", "rtx3090", "int4", 4096, 4)
    assert plan["provider"] == "runpod-pods" and "price" in plan["unverified"]
    assert planner.plan("Qwen3-8B", "a40", "int4", 4096, 4)["provider"] == "runpod", "only serverless is known"
    assert {row["kind"] for name in tables.gpus() for row in tables.prices(name)} == {"machine", "pod", "serverless"}
