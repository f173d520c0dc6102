"""A real vLLM OpenAI-compatible server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from ..errors import EngineError
from ..process import Child, free_port, last_words
from . import settings
from .diagnosis import reason, refuse_early

STOP_S = 10
"""How long a server may take to stop by itself, beyond its `shutdown_timeout`, before it is killed.

vLLM 0.32.0 may wait for ever for a client whose answer it cut off."""

LONGEST_FOLDER = 50
"""vLLM puts Unix sockets with names of 36 characters in its temporary folder; their path may have 107 (see unix(7))."""

ASK = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
"""A proxy that the environment names must not come between us and 127.0.0.1."""


class Server:
    """A running server: where it answers, what it is called there, its log and its metrics."""

    def __init__(self, child: Child, port: int, model: str, stop_s: float = STOP_S):
        self.child = child
        self.stop_s = stop_s
        self.port = port
        self.model = model
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"
        self.pid = child.pid
        """The process id of the API server; 0 if it could not be started."""
        self._final_log: str | None = None

    def log(self) -> str:
        """Return all that the server has written so far."""
        return self.child.log() if self._final_log is None else self._final_log

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return what /metrics says: per sample name a list of labels and value. Raises httpx.HTTPError."""
        from prometheus_client.parser import text_string_to_metric_families

        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        text = ASK.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry these labels. Raises KeyError if it does not exist."""
        return sum(v for found, v in self.metrics()[name] if all(found.get(k) == want for k, want in labels.items()))

    def client(self) -> Any:
        """Return an `openai.OpenAI` client of this server, without retries."""
        from openai import DefaultHttpxClient, OpenAI

        straight = DefaultHttpxClient(trust_env=False)
        return OpenAI(base_url=self.base_url, api_key="none", max_retries=0, timeout=300, http_client=straight)

    def terminate(self) -> None:
        """Send SIGTERM to the API server, as systemd and Kubernetes do to stop it."""
        self.child.send(signal.SIGTERM)

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit status once the server has ended, 128 + N after signal N. Raises TimeoutExpired."""
        return self.child.wait(timeout_s)

    def running(self) -> bool:
        """Return whether the server process is alive."""
        return self.child.running()

    def stop(self) -> None:
        """Stop the server and every process below it: SIGTERM, and SIGKILL if that takes too long (see STOP_S)."""
        self.child.stop(self.stop_s)

    def kill(self) -> None:
        """End the server and every process below it at once."""
        self.child.kill()


@contextlib.contextmanager
def serve(
    model: str,
    *,
    port: int | None = None,
    env: dict[str, str] | None = None,
    timeout_s: float = 300,
    **engine_args: Any,
) -> Iterator[Server]:
    """Give a vLLM server that answers, on 127.0.0.1 and a free port; it is gone when the block ends.

    Parameters
    ----------
    model: a folder or an id. port: a free one if not given. env: more environment variables. timeout_s: how long it may
    take until it answers. engine_args: vLLM's engine arguments over this machine's defaults, in Python's spelling:
    `max_num_seqs=4`, `enable_lora=True`, `enable_prefix_caching=False`, lists for flags that take several values.

    It is ready when it has answered a completion of one token, not when its port opens. It ends with the block, with
    Ctrl-C, and with this process, however that ends. Raises EngineError with the engine's own reason.
    """
    model = os.path.expanduser(model)
    variables = {**settings.outside(os.environ), **settings.environment(), "PYTHONUNBUFFERED": "1", **(env or {})}
    given = settings.arguments({"served_model_name": Path(model).name, **engine_args})
    if settings.profile() == "cpu":
        refuse_early(model, variables, settings.kv_space_bytes(variables), given)
    try:
        chosen = free_port(port)
    except OSError as error:
        raise EngineError(f"port {port} on 127.0.0.1: {os.strerror(error.errno or 0)}; take another") from None
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    command += ["--port", str(chosen), "--model", model, *_flags(given)]
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="llminfra-", dir=place, ignore_cleanup_errors=True) as folder:
        child = Child(command, folder, Path(folder) / "engine.log", variables)
        server = Server(child, chosen, _served_name(given), STOP_S + float(given.get("shutdown_timeout") or 0))
        try:
            try:
                _await(server, timeout_s)
            except BaseException:
                server.kill()  # it has no requests to finish
                raise
            yield server
        finally:
            server.stop()
            server._final_log = server.log()


def _served_name(given: dict[str, Any]) -> str:
    name = given["served_model_name"]
    return str(name[0]) if isinstance(name, list | tuple) else str(name)


def _flags(given: dict[str, Any]) -> list[str]:
    """Return engine arguments as the command line spells them."""
    flags: list[str] = []
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value is False:
            flags.append("--no-" + flag[2:])
        elif isinstance(value, list | tuple):
            flags += [flag, *(json.dumps(item) if isinstance(item, dict) else str(item) for item in value)]
        elif isinstance(value, dict):
            flags += [flag, json.dumps(value)]
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def _await(server: Server, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    try:
        if server.child.until(lambda: _answers(server, deadline), timeout_s, pause_s=0.2):
            return
    except TimeoutError:
        said = f"the engine did not answer within {timeout_s:g} s; raise timeout_s. Its last words: {last_words(server.log())}"
        raise EngineError(said, server.log()) from None
    log, status = server.log(), server.child.status or 0
    raise EngineError(f"the engine stopped while starting (status {status}): {reason(log, status)}", log)


def _answers(server: Server, deadline: float) -> bool:
    """Return whether the server is healthy, knows its model, and has answered a question of one token about it."""
    question = {"model": server.model, "prompt": "Hi", "max_tokens": 1}
    try:
        if ASK.get(f"{server.url}/health", timeout=5).status_code != 200:
            return False
        models = ASK.get(f"{server.base_url}/models", timeout=5).json()["data"]
        if server.model not in [model["id"] for model in models]:
            return False
        patience_s = max(1.0, deadline - time.monotonic())
        answer = ASK.post(f"{server.base_url}/completions", json=question, timeout=patience_s)
        if answer.status_code == 404:
            question = {"model": server.model, "input": "Hi"}
            answer = ASK.post(f"{server.base_url}/embeddings", json=question, timeout=patience_s)
        return answer.status_code == 200
    except (httpx.HTTPError, LookupError, ValueError):
        return False
