"""The settings under which an engine runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..models import MODELS, cache_folder, profile

KV_SPACE_GIB = 1
SMALL = {"max_model_len": 1024, "max_num_seqs": 16, "enforce_eager": True}
"""Enough for a lab, and quick to start."""
BLOCK_TOKENS = 128
"""What the CPU build chooses by itself; offline engines take it everywhere, so that labs count the same blocks."""

COMPILED = "TORCHINDUCTOR_CACHE_DIR"

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": str(KV_SPACE_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
OFFLINE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "CRITICAL"}
"""What an engine inside this process needs, and a server must not inherit: it would be silent about its faults."""


def outside(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without those that an offline engine set."""
    return {name: value for name, value in env.items() if OFFLINE.get(name) != value}


def environment() -> dict[str, str]:
    """Return the environment variables an engine needs here; what the caller's environment sets wins.

    On a CPU: nothing fetched from a hub, 1 GiB of KV cache, one thread (two collapse on busy cores).
    """
    wanted = {**QUIET, **ON_CPU} if profile() == "cpu" else {k: v for k, v in QUIET.items() if k != "HF_HUB_OFFLINE"}
    found = {name: os.environ.get(name, value) for name, value in wanted.items()}
    # torch writes its own choice into the environment: for all later engines, the temporary folder of the first one.
    chosen = os.environ.get(COMPILED, "torchinductor_")
    torchs_own = os.path.basename(chosen).startswith("torchinductor_")
    return {**found, COMPILED: str(cache_folder() / "torchinductor") if torchs_own else chosen}


def kv_space_bytes(env: dict[str, str]) -> int:
    """Return how many bytes of KV cache an engine on a CPU will take under these variables."""
    return int(float(env.get("VLLM_CPU_KVCACHE_SPACE", KV_SPACE_GIB)) * 2**30)


def arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return engine arguments with this machine's defaults under what is given."""
    return {**MODELS[profile()].engine_args, **(SMALL if profile() == "cpu" else {}), **given}


def offline_arguments(given: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of an offline engine: the same small one with the same cache on every machine.

    Its scheduler is synchronous, which on a GPU is not vLLM's default: labs look at a step's decision beside the tokens that the
    step made.
    """
    cache = {"block_size": BLOCK_TOKENS, "kv_cache_memory_bytes": kv_space_bytes(env)}
    watched = {"disable_log_stats": False, "use_tqdm_on_load": False, "async_scheduling": False}
    return arguments({**SMALL, **cache, **watched, **given})
