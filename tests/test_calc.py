"""The course's arithmetic: figures that can be checked by hand, what must hold for any, and where values come from."""

import ast
import json
import math
from datetime import date
from pathlib import Path

import pytest

from llminfra.calc import cost, memory, roofline, tables

CALC = Path(tables.__file__).parent


# What can be checked by hand.


@pytest.mark.parametrize(("gpu", "ridge"), [("t4", 203), ("l4", 403), ("a100-80gb", 153), ("h100", 295), ("h200", 206)])
def test_ridge_points(gpu, ridge):
    assert round(roofline.ridge_flop_per_byte(gpu, "fp16")) == ridge


@pytest.mark.parametrize(
    ("gpu", "tokens_per_s"),
    [
        ("t4", 23.7),
        ("l4", 22.3),
        ("a10g", 44.5),
        ("a100-40gb", 115.4),
        ("a100-80gb", 151.3),
        ("h100", 248.6),
        ("h200", 356.2),
    ],
)
def test_decode_ceiling_of_llama_2_7b(gpu, tokens_per_s):
    assert memory.weights_bytes("Llama-2-7B", "fp16") == 6_738_415_616 * 2
    assert round(roofline.decode_ceiling_per_s("Llama-2-7B", gpu, "fp16"), 1) == tokens_per_s


def test_kv_bytes_per_token():
    assert memory.kv_bytes_per_token("Llama-2-7B") == 512 * 1024
    assert memory.kv_bytes_per_token("Llama-3-8B") == 128 * 1024
    assert memory.kv_bytes_per_token("Llama-3-70B") == 320 * 1024
    assert memory.kv_bytes_per_token("LLaMA-13B") == 819_200
    assert round(memory.kv_bytes_per_token("LLaMA-13B") * 2048 / 1e9, 2) == 1.68
    assert memory.kv_bytes_per_token("Llama-3-8B", "fp8") == 64 * 1024


def test_lora_parameters_of_llama_2_7b():
    trained = memory.lora_parameters("Llama-2-7B", 8, ("q", "v"))
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


@pytest.mark.parametrize("model", tables.models())
@pytest.mark.parametrize("gpu", tables.gpus())
def test_one_stream_without_cache_and_losses_runs_at_the_ceiling(model, gpu):
    step = roofline.decode_step_s(model, gpu, "fp16", 1, 0, compute_efficiency=1, memory_efficiency=1)
    assert step["bound"] == "memory"
    assert step["tokens_per_s"] == pytest.approx(roofline.decode_ceiling_per_s(model, gpu, "fp16"))


@pytest.mark.parametrize("gpu", tables.gpus())
def test_decode_turns_compute_bound_at_the_critical_batch(gpu):
    exact = {"compute_efficiency": 1, "memory_efficiency": 1}
    batch = roofline.critical_batch("Llama-3-8B", gpu, "fp16")
    assert roofline.decode_step_s("Llama-3-8B", gpu, "fp16", batch, 0, **exact)["bound"] == "compute"
    assert roofline.decode_step_s("Llama-3-8B", gpu, "fp16", batch - 1, 0, **exact)["bound"] == "memory"
    assert batch == pytest.approx(roofline.ridge_flop_per_byte(gpu), rel=0.08)


def test_no_batch_is_compute_bound_when_the_cache_outweighs_the_arithmetic():
    assert roofline.critical_batch("Llama-2-7B", "a10g", "fp16", 4096) is None
    assert roofline.decode_step_s("Llama-2-7B", "a10g", "fp16", 10_000, 4096)["bound"] == "memory"


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
        sizes = [memory.weights_bytes(name, precision) for precision in memory.PRECISIONS]
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
            assert plan["blocks"] * 16 * memory.kv_bytes_per_token(model) <= plan["kv_bytes"]
            assert plan["fits"] == (plan["kv_tokens"] >= 2048)
            assert plan["max_concurrent"] <= min(256, plan["kv_tokens"] // 2048)


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
    for gpu in tables.gpus():
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
        (lambda: tables.gpu("a10"), "no GPU 'a10'; nearest: a10g"),
        (lambda: tables.model("Qwen2.5-7B"), "nearest: Qwen2.5-7B-Instruct"),
        (lambda: tables.price("t4", "azure"), "no price of a t4 from 'azure'.*known: gcp, aws, modal"),
        (lambda: tables.price("b200"), "no GPU 'b200'"),
        (lambda: tables.sourced("gpus", "t4", "colour"), "no field of t4 'colour'"),
        (lambda: tables.sourced("prices", "t4", "usd"), "no table 'prices'"),
        (lambda: memory.weights_bytes("Llama-2-7B", "nf4"), "no precision 'nf4'; nearest: .*int4"),
        (lambda: memory.kv_bytes_per_token("Llama-2-7B", "int4"), "no precision of the cache 'int4'"),
        (lambda: memory.lora_parameters("Llama-2-7B", 8, ("q_proj",)), "no projection 'q_proj'"),
        (lambda: memory.lora_parameters("Llama-2-7B", 0), "rank must be more than 0"),
        (lambda: memory.plan("Llama-2-7B", "t4", "fp16", 0), "context_tokens must be more than 0, not 0"),
        (lambda: memory.plan("Llama-2-7B", "t4", "fp16", 9, gpu_memory_utilization=92), "at most 1, not 92"),
        (lambda: memory.kv_blocks(-1), "tokens must not be negative"),
        (lambda: roofline.rate_flop_per_s("t4", "bf16"), "t4 multiplies no bf16; it has fp16, int8, int4"),
        (lambda: roofline.ridge_flop_per_byte("a100-80gb", "fp8"), "a100-80gb multiplies no fp8"),
        (lambda: roofline.decode_step_s("Llama-2-7B", "t4", "fp16", 0, 1), "batch must be more than 0"),
        (
            lambda: roofline.prefill_s("Llama-2-7B", "t4", "fp16", 1, compute_efficiency=1.2),
            "compute_efficiency must be",
        ),
        (lambda: cost.usd_per_million_tokens(1, 0), "tokens_per_s must be more than 0"),
        (lambda: cost.usd_per_million_tokens(1, math.nan), "tokens_per_s must be more than 0, not nan"),
        (lambda: cost.usd_per_million_tokens(1, 1, utilisation=0), "utilisation must be more than 0"),
        (lambda: cost.lab_usd("t4", 0), "minutes must be more than 0"),
    ],
)
def test_errors_say_what_and_what_is_known(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Where it runs, and where the values come from.


@pytest.mark.parametrize("module", sorted(CALC.glob("*.py")), ids=lambda path: path.name)
def test_calc_stays_pure_enough_for_micropython(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    own = {path.stem for path in CALC.glob("*.py")}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"math", "heapq", "json", "collections"}
        if isinstance(node, ast.ImportFrom):
            named = {alias.name for alias in node.names}
            assert (node.level == 1 and (named <= own or node.module in own)) or node.module in ("collections", "heapq")


def _tables():
    for path in sorted((CALC / "data").glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def test_each_source_has_a_title_an_address_and_a_day():
    for name, table in _tables():
        for key, source in table["sources"].items():
            assert source["title"] and source["url"].startswith("https://"), f"{name}: {key}"
            assert date(2026, 1, 1) <= date.fromisoformat(source["read"]) <= date.today(), f"{name}: {key}"


def test_each_value_has_a_source_and_each_source_a_value():
    used: dict[str, set[str]] = {"gpus": set(), "models": set(), "prices": set()}
    for name, table in _tables():
        rows = table[name]
        for row in rows if isinstance(rows, list) else rows.values():
            if isinstance(rows, list):
                used[name].add(row["source"])
                continue
            assert set(row["values"]) == set(row["from"]), f"{name}: {row['title']}"
            assert set(row["unverified"]) <= set(row["values"]), f"{name}: {row['title']}"
            used[name] |= set(row["from"].values())
        assert used[name] == set(table["sources"]), name


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
            assert row["gpus_per_instance"] in (1, 8)
