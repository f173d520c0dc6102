"""Make torch and vLLM take a processor for one with AVX2 alone, in each Python that finds this on its path.

Kernels that read the environment are told by it (`suite.mask`). vLLM asks torch which of its own libraries to load, and torch
asks the processor: its questions are answered with no, but for AVX2.
"""

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Mask(importlib.abc.MetaPathFinder):
    """Finds `torch.cpu` once, as it is, and replaces its probes when it has been executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def masked(module: ModuleType) -> None:
            execute(module)
            for probe in vars(module):
                if probe.startswith("_is_") and probe != "_is_avx2_supported":
                    setattr(module, probe, lambda *_: False)

        spec.loader.exec_module = masked  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Mask())
