"""The `llminfra` command says what is wrong in one line, and what is stale."""

import json
import shutil

import pytest

from llminfra import cli, models
from llminfra.calc import planner, tables
from llminfra.notebook.chapter import chapters


def test_a_chapter_that_is_not_there(capsys):
    assert cli.main(["notebooks", "77"]) == 2
    said = capsys.readouterr().err
    there = ", ".join(path.name[:2] for path in chapters())
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
    monkeypatch.setattr(cli, "chapters", lambda: [chapter])
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
    assert "t4: t4 multiplies no bf16" in said and "not measured" in said


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
        ({"--gpu": "t4"}, "t4 multiplies no bf16; it has"),
        ({"--gpu": "a10"}, "no GPU 'a10'; nearest: a10g"),
        ({"--model": "Qwen2.5-7B"}, "no model 'Qwen2.5-7B'; nearest: Qwen2.5-7B-Instruct"),
        ({"--precision": "nf4"}, "no precision 'nf4'"),
        ({"--context": "1000000"}, "was made for 32768 tokens of context, not 1000000"),
        ({"--users": "0"}, "users must be a whole number of at least 1, not 0"),
    ],
)
def test_a_plan_for_what_cannot_be_says_why(changed, words, capsys):
    options = dict(zip(ASKED[1::2], [*ASKED[2::2], "a10g"], strict=True)) | changed
    assert cli.main(["plan", *(word for pair in options.items() for word in pair)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err
