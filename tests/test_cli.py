"""The `llminfra` command says what is wrong in one line, and what is stale."""

import shutil

import pytest

from llminfra import cli, models, twins


def test_a_chapter_that_is_not_there(capsys):
    assert cli.main(["notebooks", "77"]) == 2
    said = capsys.readouterr().err
    assert said == "llminfra: no chapter 77 with code cells; there are 02\n"


def test_wrong_words_get_the_usage():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["no-such-command"])
    assert stopped.value.code == 2


def test_check_says_what_is_stale(monkeypatch, tmp_path, capsys):
    assert cli.main(["notebooks", "--check"]) == 0
    assert capsys.readouterr().out == "every chapter's twin speaks for it\n"
    chapter = tmp_path / "book" / twins.chapters()[0].name
    chapter.parent.mkdir()
    shutil.copy(twins.chapters()[0], chapter)
    monkeypatch.setattr(twins, "chapters", lambda: [chapter])
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
