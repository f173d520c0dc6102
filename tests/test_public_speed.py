"""What the arithmetic says of speed against what people measured."""

import importlib.util
import statistics
from pathlib import Path

import pytest

from llminfra.calc import tables
from llminfra.trust import speed

ROOT = Path(__file__).resolve().parents[1]
CLEAR = [row for row in speed.rows() if "ambiguous" not in row]


@pytest.mark.parametrize("held_out", [False, True])
def test_speeds_are_within_30_percent_at_the_median_and_a_factor_of_two(held_out, covered):
    ratios = [speed.slower(row) for row in CLEAR if row["held_out"] == held_out]
    errors = [max(ratio, 1 / ratio) for ratio in ratios]
    assert len(errors) > 20
    assert statistics.median(errors) < 1.3
    assert max(errors) < 2
    kind = "held out" if held_out else "fitted"
    covered(
        "public speeds",
        f"{len(errors)} {kind}: median {statistics.median(errors) - 1:.0%} off, worst {max(errors):.2f}x",
    )


def test_the_constants_are_those_of_the_fit():
    file = ROOT / "benchmarks" / "fit_speed.py"
    spec = importlib.util.spec_from_file_location("fit_speed", file)
    fit_speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fit_speed)
    for name, value in fit_speed.fit().items():
        assert tables.assumption(name)["value"] == pytest.approx(value, rel=0.01), name


def test_speeds_are_told_apart_by_what_they_are_of():
    found = speed.by_figure(speed.rows())
    assert sum(map(len, found.values())) == len(speed.rows())
    assert {speed.kind(row) for _, row in found["throughput"]} == {"output_tokens_per_s"}
    assert {speed.kind(row) for _, row in found["TTFT"]} == {"ttft_ms"}
    assert list(speed.by_figure([row for _, row in found["TTFT"]])) == ["TTFT"]
    assert speed.factor(0.5) == speed.factor(2) == 2


def test_every_row_has_a_source_a_kind_and_names_that_are_known():
    data = speed.read()
    for row in data["rows"]:
        assert {"title", "url", "read"} == set(data["sources"][row["source"]])
        assert sum(kind in row for kind in speed.KINDS) == 1
        assert row["gpu"] in tables.gpus()
        assert speed.predicted(row) > 0


def test_a_closed_loop_predicts_what_the_simulator_does():
    from llminfra.calc import roofline, simulator, workload

    row = {"model": "Llama-3-8B", "gpu": "h100", "precision": "bf16", "prompt": 256, "output": 128, "concurrency": 16}
    run = simulator.simulate(
        workload.requests(320, 256, 128), roofline.step_time("Llama-3-8B", "h100", "bf16"), concurrency=16
    )
    assert speed.predicted(row | {"output_tokens_per_s": 1}) == pytest.approx(run["output_tokens_per_s"], rel=0.15)
