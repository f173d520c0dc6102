"""Why an engine did not start, in its own words."""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ..errors import EngineError, nearest
from ..process import last_words

CONSEQUENCES = ("Engine core initialization failed", "Engine process failed to start", "SystemExit", "APIServer")
OUT_OF_MEMORY = "it was killed without a word, most likely for lack of memory; take a smaller model or KV cache"
LONGEST_REASON = 400
OVERHEAD_BYTES = 1_500_000_000
"""What an engine on a CPU holds beside weights and cache: its libraries and work space (measured: 1.2 GB at rest)."""
CURES = (
    (r"[Aa]ddress already in use", "another program took the port; let serve choose one"),
    (r"divisible by tensor parallel", "take a tensor_parallel_size that divides them"),
    (r"greater than the derived max_model_len", "lower max_model_len"),
    (r"deserializing", "a weights file is damaged or not whole: make or fetch it again"),
    (r"outgoing traffic has been disabled", "give a folder: nothing is fetched from a hub here"),
    (r"Cannot find the config file for", "the weights are not quantized that way"),
)
"""What to do about a reason that does not say it."""


def reason(log: str, status: int = 1) -> str:
    """Return the engine's own reason from its log, and what to do: the first error that is no consequence of another.

    `status` is how it exited, 128 + N after signal N.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    if status == 128 + signal.SIGKILL or re.search(r"Failed core proc\(s\): \{[^}]*: -9", plain):
        return OUT_OF_MEMORY
    usage = re.search(r"error: (.+)", plain)
    if usage and "usage:" in plain:
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", usage.group(1))
        if not unknown:
            return explain(usage.group(1).strip())
        flags = {flag.replace("-", "_") for flag in re.findall(r"\[--([\w-]+)", plain)}
        name = unknown.group(1).replace("-", "_")
        if nearest(name.removeprefix("no_"), flags):
            name = name.removeprefix("no_")
        return f"unknown engine argument {name!r}{nearest(name, flags)}"
    for match in re.finditer(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): (.+)", plain, re.M):
        if not any(consequence in match.group(0) for consequence in CONSEQUENCES):
            return explain(
                tidy(match.group(2) if "validation error" not in match.group(2) else plain[match.start(2) :])
            )
    return OUT_OF_MEMORY if CONSEQUENCES[0] in plain else last_words(plain)


def explain(said: str) -> str:
    """Return a reason with what to do about it, where that is known."""
    cure = next((cure for pattern, cure in CURES if re.search(pattern, said)), None)
    return f"{said.rstrip('.')}; {cure}" if cure else said


def tidy(text: str) -> str:
    """Return the message of an exception in one paragraph: pydantic's frame and links to its documentation removed."""
    value = re.search(r"Value error, (.+?)(?: \[type=|$)", text, re.S)
    field = re.match(r"\d+ validation error.*\n(?:.*\] )?(\S+)\n(?:.*\] )? *(.+?)(?: \[type=|$)", text)
    if value:
        text = value.group(1)
    elif field:
        text = f"{field.group(1)}: {field.group(2)}"
    first = text.strip().splitlines()[0] if text.strip() else "it gave no reason"
    said = re.sub(r"\s*See https?://\S+( for more details)?\.?", "", first).removeprefix("Error: ").strip()
    return textwrap.shorten(said, LONGEST_REASON, placeholder=" …")


def refuse_early(model: str, env: Mapping[str, str], kv_bytes: int, given: Mapping[str, Any]) -> None:
    """Raise EngineError for what is known before an engine starts: no such model, or one too large for memory.

    `env` is the engine's environment, `kv_bytes` what the KV cache will take, `given` the engine's arguments. Only for an
    engine on a CPU: a GPU's memory is the engine's to judge.
    """
    folder = Path(model).expanduser()
    if not (model.startswith((os.sep, ".", "~")) or folder.exists()):
        if env.get("HF_HUB_OFFLINE") == "1" and not _in_hub_cache(model):
            raise EngineError(
                f"model {model!r} is no folder and is not in the hub's cache, and nothing is fetched while "
                "HF_HUB_OFFLINE=1; `llminfra model` prints the folder of the course's model"
            )
        return
    if not (folder / "config.json").is_file():
        missing = "there is no such folder" if not folder.is_dir() else "it has no config.json"
        raise EngineError(f"model {folder.name!r}: {missing}; `llminfra model` prints the folder of the course's model")
    weights = _weights_bytes(folder, given)
    available = psutil.virtual_memory().available
    needed = weights + kv_bytes + OVERHEAD_BYTES
    if needed > available:
        raise EngineError(
            f"model {folder.name!r} is too large for this machine's memory: weights {weights / 2**30:.1f} GiB, "
            f"KV cache {kv_bytes / 2**30:.1f} GiB and the engine {OVERHEAD_BYTES / 2**30:.1f} GiB need "
            f"{needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available; take a smaller or quantized model"
        )


def _weights_bytes(folder: Path, given: Mapping[str, Any]) -> int:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype") or "")
    widened = 2 if given.get("dtype") == "float32" and stored.endswith("16") else 1
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf")]
    if files and given.get("load_format") != "dummy":
        return widened * sum(file.stat().st_size for file in files)
    hidden, layers = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    inner, words = config.get("intermediate_size", 4 * hidden), config.get("vocab_size", 0)
    return widened * int(2 * (layers * (4 * hidden**2 + 3 * hidden * inner) + words * hidden))


def _in_hub_cache(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return False
