"""Why an engine did not start, in its own words."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import psutil

GENERIC = ("Engine core initialization failed", "Engine process failed to start", "SystemExit", "APIServer")
OVERHEAD_BYTES = 1_500_000_000
"""What an engine on a CPU holds beside weights and cache: its libraries and work space (measured: 1.2 GB at rest)."""


class EngineError(Exception):
    """An engine that could not start or be used; `log` is all it wrote."""

    def __init__(self, message: str, log: str = ""):
        super().__init__(message)
        self.log = log


def reason(log: str) -> str:
    """Return the engine's own reason from its log: the first exception or usage error that is no mere consequence."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    usage = re.search(r"error: (.+)", plain)
    if usage and "usage:" in plain:
        return usage.group(1).strip()
    for match in re.finditer(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): (.+)", plain, re.M):
        said = match.group(2).strip()
        if not any(generic in match.group(0) for generic in GENERIC):
            return tidy(said if "validation error" not in said else plain[match.start() :])
    last = [line for line in plain.splitlines() if line.strip()]
    return last[-1].strip() if last else "it wrote nothing"


def tidy(text: str) -> str:
    """Return the message of an exception in one paragraph: pydantic's frame and links to its documentation removed."""
    value = re.search(r"Value error, (.+?)(?: \[type=|$)", text, re.S)
    if value:
        text = value.group(1)
    return re.sub(r"\s+", " ", text.splitlines()[0]).strip()


def refuse_early(model: str, kv_bytes: int, load_format: Any = None) -> None:
    """Raise EngineError for what is known before an engine starts: no such folder, or a model too large for memory.

    `kv_bytes` is what the KV cache will take. Only for an engine on a CPU: a GPU's memory is the engine's to judge.
    """
    if not (model.startswith((os.sep, ".", "~")) or Path(model).exists()):
        return
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        missing = "there is no such folder" if not folder.is_dir() else "it has no config.json"
        raise EngineError(f"model {folder.name!r}: {missing}; `llminfra model` prints the folder of the course's model")
    weights = _weights_bytes(folder, load_format)
    available = psutil.virtual_memory().available
    needed = weights + kv_bytes + OVERHEAD_BYTES
    if needed > available:
        raise EngineError(
            f"model {folder.name!r} is too large for this machine's memory: weights {weights / 2**30:.1f} GiB, "
            f"KV cache {kv_bytes / 2**30:.1f} GiB and the engine {OVERHEAD_BYTES / 2**30:.1f} GiB need "
            f"{needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available; take a smaller or quantized model"
        )


def _weights_bytes(folder: Path, load_format: Any) -> int:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf")]
    if files and load_format != "dummy":
        return sum(file.stat().st_size for file in files)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, layers = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    inner, words = config.get("intermediate_size", 4 * hidden), config.get("vocab_size", 0)
    return int(2 * (layers * (4 * hidden**2 + 3 * hidden * inner) + words * hidden))
