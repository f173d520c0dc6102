"""The `llminfra` command says what is wrong in one line, and what is stale."""

import contextlib
import json
import shutil
import subprocess
import sys

import pytest

from llminfra import cli, engine, errors, models
from llminfra.calc import planner, tables
from llminfra.notebook import chapter as reader
from llminfra.notebook.chapter import chapters, short_name, with_code


def test_a_chapter_that_is_not_there(capsys):
    assert cli.main(["notebooks", "77"]) == 2
    said = capsys.readouterr().err
    there = ", ".join(map(short_name, with_code()))
    assert said == f"llminfra: no chapter 77 with code cells; there are {there}\n"


def test_wrong_words_get_the_usage():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["no-such-command"])
    assert stopped.value.code == 2


def test_check_says_what_is_stale(monkeypatch, tmp_path, capsys):
    assert cli.main(["notebooks", "--check"]) == 0
    assert capsys.readouterr().out == "every chapter's twin speaks for it\n"
    chapter = tmp_path / "book" / chapters()[0].name
    chapter.parent.mkdir()
    shutil.copy(chapters()[0], chapter)
    monkeypatch.setattr(reader, "with_code", lambda: [chapter])
    assert cli.main(["notebooks", "--check"]) == 1
    assert "has no executed twin; run `make notebooks`" in capsys.readouterr().out


def test_the_model_command_prints_what_an_engine_takes(monkeypatch, capsys):
    monkeypatch.setenv("LLMINFRA_PROFILE", "t4")
    assert cli.main(["model"]) == 0
    assert capsys.readouterr().out.strip() == models.MODELS["t4"].id
    monkeypatch.setenv("LLMINFRA_PROFILE", "abacus")
    assert cli.main(["model"]) == 2
    assert "no such profile" in capsys.readouterr().err


def test_engine_arguments_from_words():
    words = ["max_num_seqs=8", "enable-lora", "enable_prefix_caching=false"]
    assert cli.engine_arguments(words) == {"max_num_seqs": "8", "enable_lora": True, "enable_prefix_caching": False}


ASKED = ["plan", "--model", "Qwen2.5-7B-Instruct", "--precision", "bf16", "--context", "4096", "--users", "20", "--gpu"]


def test_a_plan_is_a_table_with_every_gpu(capsys):
    assert cli.main([*ASKED, "a10g"]) == 0
    said = capsys.readouterr().out
    for gpu in tables.gpus():
        assert f"\n{gpu}" in said
    assert "14.2 GiB of weights, 56 KiB of cache per token" in said
    assert "t4: the engine refuses: Bfloat16 is only supported" in said and "not measured" in said


def test_a_plan_is_an_object_for_programs(capsys):
    keys = {"weights_bytes", "kv_bytes_per_token", "fits", "max_concurrent", "replicas", "ttft_s", "itl_s"}
    keys |= {"tokens_per_s", "usd_per_hour", "usd_per_million_output_tokens"}
    assert cli.main([*ASKED, "h100", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert keys <= set(told) and told["fits"] is True
    assert told == planner.plan("Qwen/Qwen2.5-7B-Instruct", "h100", "bf16", 4096, 20)
    wide = [
        "plan",
        "--model",
        "Llama-3-70B",
        "--precision",
        "fp16",
        "--context",
        "4096",
        "--users",
        "2",
        "--gpu",
        "h100",
    ]
    assert cli.main([*wide, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is False
    assert cli.main([*wide, "--json", "--tensor-parallel", "2", "--output", "100", "--kv-precision", "fp8"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"--gpu": "t4"},
            "the engine refuses: Bfloat16 is only supported on GPUs with compute capability of at least 8.0",
        ),
        ({"--gpu": "a10x"}, "no GPU 'a10x'; nearest: a10, a10g"),
        ({"--model": "Qwen2.5-8B"}, "no model 'Qwen2.5-8B'; nearest: "),
        ({"--precision": "int3"}, "no precision 'int3'"),
        ({"--context": "1000000"}, "User-specified max_model_len (1000000) is greater than the derived max_model_len"),
        ({"--users": "0"}, "users must be a whole number of at least 1, not 0"),
    ],
)
def test_a_plan_for_what_cannot_be_says_why(changed, words, capsys):
    options = dict(zip(ASKED[1::2], [*ASKED[2::2], "a10g"], strict=True)) | changed
    assert cli.main(["plan", *(word for pair in options.items() for word in pair)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err


def test_a_plan_loads_nothing_that_it_does_not_use():
    code = f"import sys; from llminfra import cli; cli.main({[*ASKED, 'h100', '--json']}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"jupytext", "nbformat", "nbclient", "numpy", "rich", "yaml"}


def test_every_error_of_ours_is_one_line_and_any_other_is_not_hidden(monkeypatch, capsys):
    def failing(error):
        def ready(*_):
            raise error

        return ready

    for kind in errors.LlminfraError.__subclasses__():
        monkeypatch.setattr(models, "ready", failing(kind("it is so")))
        assert cli.main(["model"]) == 2
        assert capsys.readouterr().err == "llminfra: it is so\n"
    monkeypatch.setattr(models, "ready", failing(KeyError("a fault of ours")))
    with pytest.raises(KeyError):
        cli.main(["model"])


def test_the_engine_command_ends_as_the_engine_did(monkeypatch, capsys):
    class Ended:
        model, base_url = "some", "http://127.0.0.1:1/v1"

        def wait(self):
            return 139

        def log(self):
            return "RuntimeError: the cache is gone"

    @contextlib.contextmanager
    def serve(*_, **__):
        yield Ended()

    monkeypatch.setenv("LLMINFRA_PROFILE", "t4")
    monkeypatch.setattr(engine, "serve", serve)
    assert cli.main(["engine"]) == 139
    assert capsys.readouterr().err == "llminfra: the engine ended with status 139: the cache is gone\n"


def test_recording_without_a_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(models, "gpus", list)
    assert cli.main(["record", "01"]) == 2
    assert "finds no GPU on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--model", "Qwen/Qwen3-8B-AWQ", "--tensor-parallel", "2"],
        ["--model", "Llama 3.1 8B", "--precision", "fp8", "--kv-precision", "fp8", "--max-num-seqs", "64"],
        ["--model", "Qwen2.5-7B-Instruct", "--enforce-eager", "--gpu-memory-utilization", "0.85"],
        ["--model", "Qwen3-14B", "--lora-adapters", "4", "--lora-rank", "32", "--max-num-batched-tokens", "4096"],
        ["--model", "Qwen3-14B", "--pipeline-parallel", "2"],
    ],
)
def test_the_line_that_a_plan_prints_is_accepted_by_the_engines_parser(more, capsys):
    from checks.engine_cli import check_serve_args

    assert cli.main(["plan", "--context", "4096", "--users", "8", "--gpu", "NVIDIA L40S", *more]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("A replica: vllm serve "))
    parsed = check_serve_args(line.removeprefix("A replica: vllm serve ").split())
    assert parsed.max_model_len == 4096
    assert parsed.model_tag == (more[1] if "/" in more[1] else planned_id(more[1]))


def planned_id(name):
    from llminfra.calc import tables

    return tables.model(name)["id"]


def test_a_card_that_the_engine_has_no_code_for_is_refused(capsys):
    asked = ["plan", "--model", "Qwen3-8B", "--context", "4096", "--users", "8", "--gpu", "V100-SXM2-32GB"]
    assert cli.main(asked) == 2
    assert capsys.readouterr().err.strip().endswith("no code for compute capability 7.0")
