"""A processor masked to AVX2, as most laptops have it: the environment under which every kernel chooses what it would there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llminfra.notebook import machine

AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    machine.MASKED: "avx2",
}
"""For oneDNN, torch's own kernels, MKL, OpenBLAS, and our ledger; torch's probes are masked by `tools/avx2`."""


def avx2(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with the mask put on."""
    hidden = Path(__file__).resolve().parents[1] / "avx2"
    return {**env, **AVX2, "PYTHONPATH": os.pathsep.join(filter(None, [str(hidden), env.get("PYTHONPATH")]))}


def needed() -> bool:
    """Return whether a mask would change anything: whether this processor has more than AVX2, and is not masked yet."""
    return "avx2" in machine.abilities() and machine.abilities() != {"avx2"}
