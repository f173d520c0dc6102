"""A real vLLM engine as an object in this process."""

from __future__ import annotations

import contextlib
import difflib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from . import settings
from .errors import EngineError, refuse_early, tidy


@contextlib.contextmanager
def offline(model: str, **engine_args: Any) -> Iterator[Any]:
    """Give a real `vllm.LLM` in this process, and free it at the end of the block so that another can follow.

    Parameters are vLLM's engine arguments over this machine's defaults (see `settings.arguments`). What the engine
    writes while it starts does not reach the notebook. Raises EngineError with the engine's own reason if it refuses.
    """
    for name, value in settings.environment().items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
    given = settings.arguments({"disable_log_stats": False, "use_tqdm_on_load": False, **engine_args})
    on_cpu = settings.profile() == "cpu"
    if on_cpu:
        given.setdefault("distributed_executor_backend", "uni")
        refuse_early(model, settings.kv_space_bytes(dict(os.environ)), given.get("load_format"))
    with _silence():
        from vllm import LLM

        _refuse_unknown(given)
        try:
            llm = LLM(model=model, **given)
        except Exception as error:
            # The traceback's frames hold the half-made engine and its cache.
            message, error.__traceback__ = tidy(str(error)), None
            gc.collect()
            raise EngineError(f"the engine did not start: {message}") from None
    try:
        yield llm
    finally:
        with _silence():
            llm.llm_engine.engine_core.shutdown()
        # Names in a notebook may still hold the object: empty it, so that weights and cache go.
        llm.__dict__.clear()
        gc.collect()


def _refuse_unknown(given: dict[str, Any]) -> None:
    import dataclasses

    from vllm import EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise EngineError(f"unknown engine argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what is written to the descriptors of stdout and stderr, by compiled code too, off the page."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:
        saved = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in saved:
            os.dup2(sink.fileno(), number)
        try:
            with contextlib.redirect_stderr(_Devnull()):
                yield
        finally:
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)


class _Devnull:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False
