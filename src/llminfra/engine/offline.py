"""A real vLLM engine as an object in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import EngineError, nearest
from . import settings
from .diagnosis import explain, refuse_early, tidy


@contextlib.contextmanager
def offline(model: str, **engine_args: Any) -> Iterator[Any]:
    """Give a real `vllm.LLM` in this process, and free it at the end of the block so that another can follow.

    Parameters are vLLM's engine arguments over the course's defaults (see `settings.offline_arguments`). What the engine
    writes while it starts does not reach the notebook. Raises EngineError with the engine's own reason if it refuses.
    """
    model = os.path.expanduser(model)
    with tempfile.TemporaryDirectory(prefix="llminfra-", ignore_cleanup_errors=True) as folder, _environment():
        given = settings.offline_arguments(engine_args, dict(os.environ))
        if settings.profile() == "cpu":
            given.setdefault("distributed_executor_backend", "uni")
            refuse_early(model, os.environ, settings.kv_space_bytes(dict(os.environ)), given)
        with _silence() as written, _temporary_files_in(folder):
            from vllm import LLM

            _refuse_unknown(given)
            try:
                llm = LLM(model=model, **given)
            except Exception as error:
                # The traceback's frames hold the half-made engine and its cache.
                message, error.__traceback__ = explain(tidy(str(error))), None
                gc.collect()
                raise EngineError(f"the engine did not start: {message}", written()) from None
        try:
            yield llm
        finally:
            with _silence():
                llm.llm_engine.engine_core.shutdown()
            # Names in a notebook may still hold the object: empty it, so that weights and cache go.
            llm.__dict__.clear()
            gc.collect()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set the environment variables that an engine in this process needs, and put back what was there before."""
    wanted = {**settings.environment(), **settings.OFFLINE}
    wanted["VLLM_LOGGING_LEVEL"] = os.environ.get("VLLM_LOGGING_LEVEL", wanted["VLLM_LOGGING_LEVEL"])
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _refuse_unknown(given: dict[str, Any]) -> None:
    from vllm import LLM, EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)} | set(inspect.signature(LLM).parameters)
    for name in given:
        if name not in known:
            raise EngineError(f"unknown engine argument {name!r}{nearest(name, known)}")


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Let Python's temporary files go to a folder: vLLM leaves its own behind."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _silence() -> Iterator[Callable[[], str]]:
    """Keep what is written to the descriptors of stdout and stderr, by compiled code too, off the page; give it back."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:

        def written() -> str:
            sink.seek(0)
            return sink.read().decode(errors="replace")

        saved = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in saved:
            os.dup2(sink.fileno(), number)
        try:
            with contextlib.redirect_stderr(_Devnull()):
                yield written
        finally:
            sys.stdout.flush()  # what was printed meanwhile may still wait in Python
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)


class _Devnull:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False
