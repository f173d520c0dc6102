"""Read what vLLM says of memory while it starts, and make a row of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from ..calc import memory, tables
from ..errors import InputError
from .rows import MemoryRow

NUMBER = r"(-?[\d.,]*\d)"

PATTERNS = {
    "engine": r"(?:API server version |LLM engine \(v|█ +version )([\w.+-]+?)\)?(?:\s|$)",
    "model": r"""(?:'model_tag': |'model': |config: model=)'([^']+)'""",
    "dtype": r"dtype=torch\.(\w+)",
    "quantization": r"(?:quantization=|'quantization': ')(\w+)",
    "kv_precision": r"kv_cache_dtype(?:=|': ')(\w+)",
    "tensor_parallel": r"tensor_parallel_size(?:=|': )(\d+)",
    "gpu_memory_utilization": r"(?:utilization is \(|gpu_memory_utilization(?:=|': ))([\d.]+)",
    "max_model_len": r"(?:Using max model len |max_seq_len=|'max_model_len': )([\d,]+)",
    "max_num_batched_tokens": r"max_num_batched_tokens(?:=|': )(\d+)",
    "max_num_seqs": r"max_num_seqs(?:=|': )(\d+)",
    "eager": r"enforce_eager(?:=|': )(True)",
    "weights_gib": rf"(?:Model loading took|Loading model weights took) {NUMBER} Gi?B",
    "kv_gib": rf"Available KV cache memory: {NUMBER} GiB",
    "kv_tokens": rf"KV cache size: {NUMBER} tokens",
    "concurrency": rf"Maximum concurrency for [\d,]+ tokens per request: {NUMBER}x",
    "activation_gib": rf"{NUMBER} GiB for peak activation",
    "graphs_gib": rf"Graph capturing finished in [^,]+, took {NUMBER} GiB",
}
"""How vLLM 0.8 to 0.32 word each figure. Of several, the first counts: ranks repeat one another."""

CACHE_NAMES = {"auto": None, "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bf16", "float16": "fp16"}
WEIGHT_NAMES = {
    "None": None,
    "awq": "int4",
    "awq_marlin": "int4",
    "gptq": "int4",
    "gptq_marlin": "int4",
    "fp8": "fp8",
    "mxfp4": "mxfp4",
    "bitsandbytes": "nf4",
}
"""vLLM's names of formats, and ours. `compressed-tensors` and others hold more than one: the user says which."""


@dataclass(frozen=True)
class StartupLog:
    """What a start-up log says; what it does not say is None. Sizes in GiB per GPU, as vLLM logs them."""

    engine: str | None = None
    model: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_precision: str | None = None
    tensor_parallel: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    eager: str | None = None
    weights_gib: float | None = None
    kv_gib: float | None = None
    kv_tokens: int | None = None
    concurrency: float | None = None
    activation_gib: float | None = None
    graphs_gib: float | None = None

    @property
    def reported(self) -> dict[str, float]:
        """What the engine reported, by the keys of a row. A cache of less than nothing is a start that failed."""
        keys = ("weights_gib", "kv_gib", "kv_tokens", "concurrency", "activation_gib", "graphs_gib")
        found = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        if found.get("kv_gib", 1) <= 0:
            del found["kv_gib"]
            found["starts"] = False
        return found


def parse(text: str) -> StartupLog:
    """Return what a start-up log says. Raises InputError if it holds none of the lines about memory."""
    found: dict[str, Any] = {}
    kinds = {one.name: str(one.type) for one in fields(StartupLog)}
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for name, pattern in PATTERNS.items():
        seen = re.search(pattern, plain)
        if seen:
            found[name] = _value(seen[1], kinds[name])
    log = StartupLog(**found)
    if log.weights_gib is None and log.kv_tokens is None:
        raise InputError(
            "this is no start-up log of vLLM: neither 'Model loading took' nor 'KV cache size' is in it; "
            "give the engine's whole output"
        )
    return log


def _value(text: str, kind: str) -> str | int | float:
    if kind.startswith("int"):
        return int(text.replace(",", ""))
    return float(text.replace(",", "")) if kind.startswith("float") else text


def row_of(log: StartupLog, gpu: str, name: str = "", model: str = "", precision: str = "") -> MemoryRow:
    """Return a log as a row, held out: the card is asked for, since vLLM does not name it; so are a model and a precision
    that the log names otherwise than `calc` does. Its source has the row's name.

    Raises InputError for what is missing or unknown.
    """
    model = model or (log.model or "").rstrip("/").split("/")[-1]
    precision = precision or _precision(log)
    try:
        tables.gpu(gpu)
        tables.model(model)
        memory.weights_bytes(model, precision)
    except ValueError as error:
        raise InputError(f"{error}; say it with --gpu, --model or --precision") from None
    cards = f"{log.tensor_parallel} {gpu}" if (log.tensor_parallel or 1) > 1 else gpu
    name = name or f"{model} {precision}, {cards}"
    return MemoryRow(
        name=name,
        source=name,
        engine=log.engine,
        model=model,
        gpu=gpu,
        precision=precision,
        reported=log.reported,
        tensor_parallel=log.tensor_parallel or 1,
        kv_precision=CACHE_NAMES.get(log.kv_precision or "auto", log.kv_precision),
        gpu_memory_utilization=log.gpu_memory_utilization,
        max_model_len=log.max_model_len,
        max_num_batched_tokens=log.max_num_batched_tokens,
        max_num_seqs=log.max_num_seqs,
        graphs=log.eager is None and _reserves_graphs(log.engine),
        held_out=True,
    )


def _reserves_graphs(engine: str | None) -> bool:
    """Return whether this version sizes the cache after graphs: since 0.21, which is assumed where the log has no version."""
    found = re.match(r"(\d+)\.(\d+)", engine or "")
    return not found or (int(found[1]), int(found[2])) >= (0, 21)


def _precision(log: StartupLog) -> str:
    format_name = log.quantization or "None"
    if format_name not in WEIGHT_NAMES:
        raise InputError(f"the log says quantization={format_name}, which holds several formats: give --precision")
    names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", None: "bf16"}
    return WEIGHT_NAMES[format_name] or names.get(log.dtype, log.dtype or "")
