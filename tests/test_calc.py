"""The arithmetic comes out as published, and stays pure."""

import ast
import datetime
import json
import warnings

import pytest

from llminfra.calc import cost, memory, roofline, tables
from llminfra.twins import ROOT

CALC = ROOT / "src" / "llminfra" / "calc"
DATA = CALC / "data"


@pytest.mark.parametrize(("gpu", "ridge"), [("t4", 203), ("l4", 403), ("a100-80gb", 153), ("h100", 295), ("h200", 206)])
def test_ridge_points(gpu, ridge):
    assert round(roofline.ridge_flop_per_byte(gpu, "fp16")) == ridge


@pytest.mark.parametrize(
    ("gpu", "ceiling"),
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
def test_decode_ceiling_of_llama_2_7b(gpu, ceiling):
    assert roofline.decode_ceiling_per_s("Llama-2-7B", gpu, "fp16") == pytest.approx(ceiling, abs=0.05)


@pytest.mark.parametrize(
    ("model", "size"),
    [("Llama-2-7B", 512 * 1024), ("Llama-3-8B", 128 * 1024), ("Llama-3-70B", 320 * 1024), ("LLaMA-13B", 819_200)],
)
def test_kv_bytes_per_token(model, size):
    assert memory.kv_bytes_per_token(model, "fp16") == size


def test_kv_of_a_full_llama_13b_sequence_is_the_papers_1_7_gb():
    assert memory.kv_bytes_per_token("LLaMA-13B", "fp16") * 2048 / 1e9 == pytest.approx(1.68, abs=0.005)


def test_lora_parameters_of_llama_2_7b():
    count = memory.lora_parameters("Llama-2-7B", 8)
    assert count == 4_194_304
    assert 100 * count / memory.parameters("Llama-2-7B")["total"] == pytest.approx(0.062, abs=0.0005)


@pytest.mark.parametrize("name", tables.models())
def test_shapes_sum_to_the_published_count(name):
    assert memory.parameters(name)["total"] == tables.model(name)["parameters"]


def test_the_shipped_weights_have_the_predicted_size():
    assert memory.weights_bytes("SmolLM2-135M-Instruct", "bf16") == 269_030_016


def test_a_plan_divides_the_budget_and_more_memory_never_holds_less():
    for precision in ("bf16", "int8", "int4"):
        held = []
        for gpu in ("a10g", "a100-40gb", "a100-80gb", "h200"):
            plan = memory.plan("Qwen2.5-7B-Instruct", gpu, precision, 2048)
            spent = plan["weights_bytes"] + plan["activation_bytes"] + plan["overhead_bytes"] + plan["kv_bytes"]
            assert spent == plan["budget_bytes"]
            assert plan["kv_tokens"] * memory.kv_bytes_per_token("Qwen2.5-7B-Instruct") <= plan["kv_bytes"]
            held.append(plan["max_concurrent"])
        assert held == sorted(held)
    assert not memory.plan("Qwen2.5-7B-Instruct", "t4", "fp16")["fits"]
    assert memory.plan("Qwen2.5-7B-Instruct", "t4", "int4")["fits"]


def test_decode_is_bandwidth_bound_until_the_batch_is_large():
    bounds = [roofline.decode_step_s("Qwen2.5-7B-Instruct", "a100-80gb", "bf16", b, 128)["bound"] for b in (1, 8, 512)]
    assert bounds == ["memory", "memory", "compute"]
    assert roofline.prefill_s("Qwen2.5-7B-Instruct", "a100-80gb", "bf16", 1024)["bound"] == "compute"


def test_costs_by_hand():
    assert cost.usd_per_million_tokens(3.6, 1000) == pytest.approx(1.0)
    assert cost.usd_per_million_tokens(3.6, 1000, 0.5) == pytest.approx(2.0)
    assert cost.lab_usd("t4", 60)["usd"] == pytest.approx(0.526)
    assert cost.lab_usd("a100-40gb", 30)["provider"] == "Lambda"
    assert cost.lab_usd("a100-40gb", 60, "AWS")["usd"] == pytest.approx(8 * 2.745)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tables.gpu("a10"), "no GPU 'a10'; there are a10"),
        (lambda: tables.model("Qwen2.5-7B"), "no model 'Qwen2.5-7B'; there are Qwen2.5-7B-Instruct"),
        (lambda: memory.weights_bytes("Llama-2-7B", "int3"), "no precision 'int3'"),
        (lambda: roofline.rate_flop_per_s("t4", "bf16"), "T4 does not compute in bf16"),
        (lambda: tables.price("t4", "Lambda"), "no price of t4 at Lambda; there are AWS"),
        (lambda: cost.usd_per_million_tokens(1, 0), "must be positive"),
        (lambda: memory.plan("Llama-2-7B", "t4", context_tokens=0), "at least 1"),
    ],
)
def test_wrong_input_says_what_is_right(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("path", sorted(CALC.glob("*.py")), ids=lambda path: path.name)
def test_calc_imports_nothing_that_micropython_lacks(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"math", "heapq", "json", "collections"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module in {"math", "heapq", "json", "collections"}
        assert not isinstance(node, ast.Match)


def test_every_value_has_a_source_and_the_date_it_was_read():
    old = []
    entries = [
        e for g in json.loads((DATA / "gpus.json").read_text()).values() for e in g.values() if isinstance(e, dict)
    ]
    entries += json.loads((DATA / "models.json").read_text()).values()
    prices = json.loads((DATA / "prices.json").read_text())
    for entry in [*entries, *prices]:
        assert entry["source"] and entry["url"].startswith("https://")
        datetime.date.fromisoformat(entry["read"])
    for entry in prices:
        if (datetime.date.today() - datetime.date.fromisoformat(entry["read"])).days > 180:
            old.append(f"{entry['gpu']} at {entry['provider']}, read {entry['read']}")
    if old:
        warnings.warn(f"prices older than 180 days: {'; '.join(old)}", stacklevel=1)
