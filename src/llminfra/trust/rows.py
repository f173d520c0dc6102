"""What public start-up logs report of memory: the rows of `data/public_logs.json`, each with its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

LOGS = Path(__file__).resolve().parents[1] / "data" / "public_logs.json"

REPORTED = (
    "weights_gib",
    "kv_gib",
    "kv_tokens",
    "concurrency",
    "activation_gib",
    "graphs_gib",
    "kv_bytes_per_token",
    "starts",
)
"""What a row can report: sizes per GPU, tokens and concurrency as vLLM logs them, and whether the engine starts."""


@dataclass(frozen=True)
class Source:
    """Where a row comes from: a title, an address (None where it was not recorded), and the day it was read."""

    title: str
    url: str | None
    read: str


@dataclass(frozen=True)
class MemoryRow:
    """One engine that somebody started: what it was asked for, and what it reported.

    `model`, `gpu` and the precisions are names that `calc` knows, or should. A setting that is None was not reported; the
    planner then assumes the engine's default. `graphs`: whether the engine sets memory
    for CUDA graphs aside before it sizes the cache, as vLLM does since 0.21, but not in eager mode. `reported` has keys of `REPORTED`. `old`: an engine before 2025. `ambiguous`:
    why the report does not settle what was run, or empty. `held_out`: nothing in `calc` was fitted on it. `unverified` names
    what the source does not say.
    """

    name: str
    source: str
    model: str
    gpu: str
    precision: str
    reported: dict[str, Any]
    tensor_parallel: int = 1
    engine: str | None = None
    kv_precision: str | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_tokens: int | None = None
    graphs: bool = True
    old: bool = False
    ambiguous: str = ""
    held_out: bool = False
    unverified: list[str] = field(default_factory=list)

    @property
    def starts(self) -> bool:
        """Whether the engine started: it did unless the report says otherwise."""
        return bool(self.reported.get("starts", True))


def memory_rows(file: Path = LOGS) -> list[MemoryRow]:
    """Return the rows of a data file, in its order."""
    return [MemoryRow(**row) for row in _read(file)["rows"]]


def sources(file: Path = LOGS) -> dict[str, Source]:
    """Return the sources of a data file by the key that rows name."""
    return {key: Source(**source) for key, source in _read(file)["sources"].items()}


def append(row: MemoryRow, source: Source, file: Path = LOGS) -> None:
    """Add a row and its source to a data file. Raises InputError if a row of that name is there already."""
    data = _read(file)
    if row.name in {one["name"] for one in data["rows"]}:
        raise InputError(f"{file.name} already has a row {row.name!r}: give another --name")
    data["sources"][row.source] = asdict(source)
    default = MemoryRow("", "", "", "", "", {})
    always = ("name", "source", "engine", "model", "gpu", "tensor_parallel", "precision")
    given = asdict(row)
    data["rows"].append({key: given[key] for key in always})
    data["rows"][-1] |= {k: v for k, v in given.items() if k not in always and v != getattr(default, k)}
    temporary = file.with_suffix(".json.part")
    temporary.write_text(_written(data), encoding="utf-8")
    temporary.replace(file)


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def _written(data: dict[str, Any]) -> str:
    """Return a data file's text: one line for each source and row, so that a new row is one line of a diff."""

    def lines(entries: list[str]) -> str:
        return ",\n".join(f"    {entry}" for entry in entries)

    named = [f"{json.dumps(key)}: {json.dumps(source)}" for key, source in data["sources"].items()]
    rows = [json.dumps(row) for row in data["rows"]]
    note = json.dumps(data["note"])
    return f'{{\n  "note": {note},\n  "sources": {{\n{lines(named)}\n  }},\n  "rows": [\n{lines(rows)}\n  ]\n}}\n'
