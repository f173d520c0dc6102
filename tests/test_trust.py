"""What public logs report is read, compared and kept: rows with sources, errors by kind, a new log from vLLM's own lines."""

import json
import shutil
from dataclasses import replace

import pytest

from llminfra import cli, trust
from llminfra.calc import memory
from llminfra.errors import InputError
from llminfra.trust import compare, rows

# Lines of real logs, shortened to what is read: vLLM 0.10.2 on an L40S, 0.29.0 on a T4, 0.8.5 on four cards (a line of each
# rank), 0.10.1 on an H100 that was too small.
L40S = """
(APIServer pid=33) INFO 09-23 17:31:12 [api_server.py:1896] vLLM API server version 0.10.2
(APIServer pid=33) INFO 09-23 17:31:12 [utils.py:328] non-default args: {'model_tag': '/weights/Qwen/Qwen3-8B', 'dtype': 'bfloat16', 'max_model_len': 1024, 'max_num_seqs': 256}
(APIServer pid=33) INFO 09-23 17:31:23 [scheduler.py:222] Chunked prefill is enabled with max_num_batched_tokens=2048.
(EngineCore_DP0 pid=76) INFO 09-23 17:31:32 [core.py:76] Initializing a V1 LLM engine (v0.10.2) with config: model='/weights/Qwen/Qwen3-8B', dtype=torch.bfloat16, max_seq_len=1024, tensor_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto, device_config=cuda
(EngineCore_DP0 pid=76) INFO 09-23 17:31:43 [gpu_model_runner.py:2392] Model loading took 15.2683 GiB and 8.539491 seconds
(EngineCore_DP0 pid=76) INFO 09-23 17:32:25 [gpu_worker.py:298] Available KV cache memory: 23.48 GiB
(EngineCore_DP0 pid=76) INFO 09-23 17:32:25 [kv_cache_utils.py:864] GPU KV cache size: 170,944 tokens
(EngineCore_DP0 pid=76) INFO 09-23 17:32:25 [kv_cache_utils.py:868] Maximum concurrency for 1,024 tokens per request: 166.94x
(EngineCore_DP0 pid=76) INFO 09-23 17:32:30 [gpu_model_runner.py:3118] Graph capturing finished in 5 secs, took 0.56 GiB
(EngineCore_DP0 pid=76) INFO 09-23 17:32:30 [gpu_worker.py:391] Free memory on device (43.9/44.39 GiB) on startup. Desired GPU memory utilization is (0.9, 39.95 GiB). Actual usage is 15.27 GiB for weight, 1.19 GiB for peak activation, 0.02 GiB for non-torch memory, and 0.56 GiB for CUDAGraph memory.
"""
T4 = """
(EngineCore pid=281) INFO 09-19 16:42:58 [model_runner.py:960] Graph capturing finished in 9 secs, took 0.28 GiB
(EngineCore pid=281) INFO 09-19 16:42:58 [gpu_worker.py:625] Available KV cache memory: 8.62 GiB
(EngineCore pid=281) INFO 09-19 16:42:58 [kv_cache_utils.py:2032] GPU KV cache size: 322,944 tokens, Maximum concurrency for 4,096 tokens per request: 78.84x
(EngineCore pid=281) INFO 09-19 16:43:05 [model_runner.py:960] Graph capturing finished in 6 secs, took 0.15 GiB
(EngineCore pid=281) INFO 09-19 16:43:05 [gpu_worker.py:860] Free memory on device (14.46/14.56 GiB) on startup. Desired GPU memory utilization is (0.9, 13.11 GiB). Actual usage is 3.66 GiB for consumed memory (weights + non-torch), 0.82 GiB for peak activation, and 0.15 GiB for CUDAGraph memory.
"""
FOUR_RANKS = """
\x1b[1;36m(VllmWorker rank=0 pid=105)\x1b[0;0m INFO 04-29 01:07:41 [gpu_model_runner.py:1347] Model loading took 14.2474 GiB and 558.868858 seconds
\x1b[1;36m(VllmWorker rank=2 pid=107)\x1b[0;0m INFO 04-29 01:07:41 [gpu_model_runner.py:1347] Model loading took 14.2474 GiB and 559.045517 seconds
"""
TOO_SMALL = """
(EngineCore_0 pid=5839) INFO 08-20 18:04:10 [gpu_model_runner.py:2007] Model loading took 65.9651 GiB and 12.799889 seconds
(EngineCore_0 pid=5839) INFO 08-20 18:04:22 [gpu_worker.py:276] Available KV cache memory: -2.14 GiB
"""
FIRST_V1 = """
INFO 01-30 03:18:12 gpu_model_runner.py:848] Loading model weights took 67.7229 GB
INFO 01-30 03:19:14 kv_cache_utils.py:398] Maximum concurrency for 2048 tokens per request: 10.79x
"""


def test_a_start_up_log_says_what_was_asked_and_what_was_reported():
    log = trust.parse(L40S)
    assert (log.engine, log.model, log.dtype, log.quantization) == (
        "0.10.2",
        "/weights/Qwen/Qwen3-8B",
        "bfloat16",
        "None",
    )
    assert (log.tensor_parallel, log.gpu_memory_utilization, log.max_model_len) == (1, 0.9, 1024)
    assert (log.max_num_batched_tokens, log.max_num_seqs) == (2048, 256)
    assert log.reported == {
        "weights_gib": 15.2683,
        "kv_gib": 23.48,
        "kv_tokens": 170944,
        "concurrency": 166.94,
        "activation_gib": 1.19,
        "graphs_gib": 0.56,
    }


def test_every_wording_of_the_figures_is_read():
    assert trust.parse(T4).kv_tokens == 322944 and trust.parse(T4).concurrency == 78.84
    assert trust.parse(FOUR_RANKS).reported == {"weights_gib": 14.2474}
    assert trust.parse(FIRST_V1).reported == {"weights_gib": 67.7229, "concurrency": 10.79}


def test_a_cache_of_less_than_nothing_is_a_start_that_failed():
    assert trust.parse(TOO_SMALL).reported == {"weights_gib": 65.9651, "starts": False}


def test_what_is_no_start_up_log_is_refused():
    with pytest.raises(InputError, match=r"no start-up log of vLLM.*give the engine's whole output"):
        trust.parse("INFO: 127.0.0.1 - POST /v1/completions 200 OK")


def test_a_log_becomes_a_row_that_is_held_out():
    row = trust.row_of(trust.parse(L40S), "a10g")
    assert (row.name, row.source, row.model, row.precision) == ("Qwen3-8B bf16, a10g",) * 2 + ("Qwen3-8B", "bf16")
    assert row.held_out and row.kv_precision is None and row.max_num_seqs == 256
    other = trust.row_of(trust.parse(L40S), "t4", name="mine", model="Llama-3-8B", precision="int4")
    assert (other.name, other.model, other.precision) == ("mine", "Llama-3-8B", "int4")


@pytest.mark.parametrize(
    ("version", "eager", "reserves"),
    [("0.10.2", "False", False), ("0.20.1", "False", False), ("0.21.0", "False", True), ("0.32.0", "True", False)],
)
def test_graphs_are_set_aside_since_0_21_and_not_in_eager_mode(version, eager, reserves):
    log = L40S.replace("0.10.2", version).replace("enforce_eager=False", f"enforce_eager={eager}")
    assert trust.row_of(trust.parse(log), "a10g").graphs is reserves


@pytest.mark.parametrize(
    ("log", "card", "says"),
    [
        (L40S, "a10h", r"no GPU 'a10h'; nearest: a10, .*say it with --gpu"),
        (T4, "t4", r"no model ''.*say it with --gpu, --model"),
        (
            L40S.replace("quantization=None", "quantization=compressed-tensors"),
            "t4",
            "several formats: give --precision",
        ),
    ],
)
def test_what_a_log_does_not_settle_is_asked_for(log, card, says):
    with pytest.raises(InputError, match=says):
        trust.row_of(trust.parse(log), card)


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A copy of the data file, which the command reads and writes instead."""
    file = shutil.copy(rows.LOGS, tmp_path / "public_logs.json")
    for function in (rows.memory_rows, rows.sources, rows.append):
        monkeypatch.setattr(function, "__defaults__", (*function.__defaults__[:-1], file))
    return file


def test_the_command_adds_a_log_and_says_its_errors(logs, tmp_path, capsys):
    before = logs.read_text()
    (tmp_path / "start.log").write_text(L40S)
    added = ["trust", "--add", str(tmp_path / "start.log"), "--gpu", "a100-40gb"]
    assert cli.main(added) == 2
    assert "--add needs --gpu" in capsys.readouterr().err and logs.read_text() == before
    assert cli.main([*added, "--url", "https://example.org/log"]) == 0
    said = capsys.readouterr().out
    assert "15.27" in said and "170,944" in said and "make notebooks" in said
    row = rows.memory_rows(logs)[-1]
    assert row.held_out and row.reported["kv_tokens"] == 170944
    assert rows.sources(logs)[row.source].url == "https://example.org/log"
    after = logs.read_text().splitlines()
    assert len(after) == len(before.splitlines()) + 2, "a source and a row, a line each"
    assert cli.main([*added, "--url", "https://example.org/log"]) == 2
    assert "already has a row" in capsys.readouterr().err


def test_the_command_shows_every_figure_and_the_errors_by_kind(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["trust"]) == 0
    said = capsys.readouterr().out
    for one in [one for row in trust.memory_rows() for one in trust.compared(row)]:
        assert one.row.name in said
    assert all(f"\n{kind}: " in said for kind in (*trust.BARS, "decode", "throughput", "TTFT"))


def test_every_row_is_of_known_keys_and_has_its_source():
    data = json.loads(rows.LOGS.read_text(encoding="utf-8"))
    known = rows.memory_rows()
    assert {row.source for row in known} == set(data["sources"])
    assert len({row.name for row in known}) == len(known)
    for row in known:
        assert row.reported and set(row.reported) <= set(rows.REPORTED), row.name
        source = rows.sources()[row.source]
        assert source.title and source.read
        assert source.url or "source" in row.unverified, f"{row.name}: no address, and not marked"
    assert {row.gpu for row in known} >= {"t4", "l4", "a10g", "rtx3090", "rtx4090", "l40s", "a100-80gb", "h100", "h200"}


def test_a_row_that_set_an_assumption_is_not_held_out():
    for row in trust.memory_rows():
        used = {"activation_gib", "graphs_gib"} & set(row.reported)
        assert not (used and row.held_out), f"{row.name}: assumptions.json takes {used} from such rows"
    assert sum(row.held_out for row in trust.memory_rows()) >= 10


ROW = trust.MemoryRow(
    "a row", "a source", "Llama-3-8B", "h100", "bf16", {}, gpu_memory_utilization=0.9, max_model_len=8192
)


def test_a_row_is_compared_in_the_unit_of_its_report():
    planned = memory.plan("Llama-3-8B", "h100", "bf16", 8192, gpu_memory_utilization=0.9)
    weights, cache, many = trust.compared(
        replace(ROW, reported={"weights_gib": 10.0, "kv_tokens": 400_000, "kv_gib": 50.0, "concurrency": 50.0})
    )
    assert (weights.kind, cache.kind, many.kind) == ("weights", "KV cache", "concurrency")
    assert weights.predicted == planned["weights_bytes"] / 2**30 and weights.error == weights.predicted / 10 - 1
    assert cache.predicted == planned["kv_tokens"]
    assert many.predicted == pytest.approx(cache.predicted / 8192, rel=0.001)
    (gib,) = trust.compared(replace(ROW, reported={"kv_gib": 50.0}))
    assert gib.predicted == planned["kv_bytes"] / 2**30


def test_a_settings_share_reaches_the_prediction():
    (one,) = trust.compared(replace(ROW, reported={"kv_bytes_per_token": 1}))
    (half,) = trust.compared(replace(ROW, reported={"kv_bytes_per_token": 1}, tensor_parallel=2))
    (fp8,) = trust.compared(replace(ROW, reported={"kv_bytes_per_token": 1}, kv_precision="fp8"))
    assert one.predicted == memory.kv_bytes_per_token("Llama-3-8B") == 2 * half.predicted == 2 * fp8.predicted
    (tight,) = trust.compared(replace(ROW, reported={"kv_tokens": 1}, gpu_memory_utilization=0.5))
    (seqs,) = trust.compared(replace(ROW, reported={"kv_tokens": 1}, max_num_seqs=16))
    (plain,) = trust.compared(replace(ROW, reported={"kv_tokens": 1}))
    (eager,) = trust.compared(replace(ROW, reported={"kv_tokens": 1}, graphs=False))
    assert tight.predicted < plain.predicted < min(seqs.predicted, eager.predicted)


def test_what_calc_lacks_is_said_and_not_compared():
    other = replace(ROW, model="Llama-99", reported={"weights_gib": 1.0})
    assert trust.unpredicted(other) == "no model 'Llama-99'" and trust.compared(other) == []
    assert trust.unpredicted(ROW) == ""


def test_the_verdict_is_that_of_precision_heads_and_memory():
    assert compare.predicted_start(ROW) is True
    assert compare.predicted_start(replace(ROW, model="Llama-3-70B")) is False
    assert compare.predicted_start(replace(ROW, model="phi-4", tensor_parallel=4)) is False
    assert compare.predicted_start(replace(ROW, gpu="t4")) is False, "a T4 multiplies no bf16"
    assert compare.predicted_start(replace(ROW, max_model_len=None)) is None


def figure(kind, error):
    return trust.Compared(replace(ROW, name=f"{error}"), kind, 100 * (1 + error), 100)


def test_the_summary_names_the_worst_and_holds_only_within_both_bars():
    fine = [figure("KV cache", error) for error in (0.01, -0.02, 0.03, 0.04, -0.14)]
    (cache,) = trust.summary(fine)
    assert (cache.rows, cache.worst.row.name, cache.holds) == (5, "-0.14", True)
    assert cache.median == pytest.approx(0.03) and cache.usual_share == 0.8
    assert not trust.summary([*fine, figure("KV cache", 0.16)])[0].holds, "one beyond the limit"
    assert not trust.summary([*fine, figure("KV cache", 0.11)])[0].holds, "too few within the usual bar"
    assert [
        one.row.name for one in trust.out_of_bounds([*fine, figure("weights", 0.05), figure("KV cache", -0.2)])
    ] == [
        "-0.2",
        "0.05",
    ]


def test_the_names_that_a_log_gives_to_formats_are_precisions():
    for name in filter(None, trust.startup.WEIGHT_NAMES.values()):
        assert memory.weights_bytes("Llama-3-8B", name)
