"""What kind of machine this is, as far as an output or a time may depend on it."""

from __future__ import annotations

import os
import platform

ABILITIES = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve"}
"""The instructions that decide which kernels the engine and torch choose."""
MASKED = "LLMINFRA_PROCESSOR"
"""The environment variable that names the abilities to which the processor is masked (see `tools/suite/mask.py`)."""


def described() -> str:
    """Return processor, cores and memory in words, with nothing that names the host."""
    model = next(iter(_cpuinfo("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB"


def abilities(masked: str | None = None) -> set[str]:
    """Return which of ABILITIES the processor has, without those behind a mask: the one given, else the environment's."""
    words = {word for line in (*_cpuinfo("flags"), *_cpuinfo("Features")) for word in line.split()}
    shown = masked or os.environ.get(MASKED)
    return ABILITIES & words & ({shown} if shown else ABILITIES)


def kind(masked: str | None = None) -> str:
    """Return the machine in words, with its abilities: two of a kind are expected to give the same outputs."""
    return f"{described()}, {' '.join(sorted(abilities(masked))) or 'no vector instructions'}"


def _cpuinfo(key: str) -> list[str]:
    """Return what /proc/cpuinfo says under a key of the first processor: a list of one text, or empty."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return [value.strip()]
    return []
