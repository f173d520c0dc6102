"""A launcher under watch: what its engine is told to do, what the engine saw, what is left of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ex1_engine
import ex1_watch

from llminfra.grade import Running, Stopped, Submission, judge

SLOW_S = 15
"""How long a busy machine may take for what takes a second."""

FIRST = 20_000 + os.getpid() * 97 % 12_000
PORTS = itertools.cycle([*range(FIRST, 32_000), *range(20_000, FIRST)])
"""Below those that the kernel takes for connections: a port that is free now is still free when a launcher gets to it."""

PLAN = {
    "load_s": 0.0,
    "loads_until": "",
    "healthy_s": 0.0,
    "warm_s": 0.0,
    "lives_s": 0.0,
    "dies": 0,
    "stubborn": False,
    "noise_bytes": 1000,
    "says": [],
    "last": "",
    "pieces": ["Hi"],
    "ends_when_told": False,
    "env": [],
}
"""What an engine does unless it is told something else."""


def free_port() -> int:
    """Return a port on which nobody listens, another one each time."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Launch:
    """A launcher that runs, and its engine."""

    def __init__(self, running: Running, plan: dict[str, Any], config: dict[str, Any], status: Path):
        self.running, self.plan, self.config, self._status = running, plan, config, status

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What the engine wrote down: a dictionary an event."""
        path = Path(self.plan["seen"])
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def status(self) -> int | None:
        """The launcher's exit status; None while it runs."""
        return int(self._status.read_text()) if self._status.exists() else None

    def until(self, true: Callable[[], bool], what: str, limit_s: float = SLOW_S) -> float:
        """Wait until something is true and return the seconds that it took. Raises Stopped, which fails the requirement."""
        began = time.monotonic()
        while not true():
            if self.status is not None and not true():
                raise Stopped(
                    f"not so: {what}. It ended with status {self.status}: {self.running.err.strip()[-200:]!r}"
                )
            if time.monotonic() - began > limit_s or not self.running.running():
                raise Stopped(f"not within {limit_s:g} s: {what}. Standard error: {self.running.err.strip()[-200:]!r}")
            time.sleep(0.01)
        return time.monotonic() - began

    def until_started(self) -> None:
        """Wait until the launcher has started the engine."""
        self.until(lambda: bool(self.seen), "the launcher started the engine")

    def until_ready(self) -> None:
        """Wait until the launcher says that the engine is ready."""
        self.until(lambda: self.running.out.startswith("ready "), "the launcher printed `ready URL`")

    def until_ended(self, limit_s: float = SLOW_S) -> tuple[int, float]:
        """Wait until the launcher has ended; return its exit status and how long that took."""
        took = self.until(lambda: self.status is not None, "the launcher ended", limit_s)
        assert self.status is not None
        return self.status, took

    def stopped_after_s(self) -> float:
        """Return the seconds from the engine's SIGTERM to the launcher's end."""
        return self._status.stat().st_mtime - next(one["at"] for one in self.seen if "signal" in one)

    def judge_gone(self, given: str) -> None:
        """Fail unless the engine's second process, which ignores SIGTERM, is gone too."""
        for _ in range(50):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.plan["core_port"])):
                    return
            time.sleep(0.02)
        judge(
            False, given=given, seen="a process of the engine is alive", expected="all of them ended with the launcher"
        )


def drawn_config(draw: random.Random, submission: Submission, device: str = "cpu", **values: Any) -> dict[str, Any]:
    """Return a configuration with drawn values; its `command` is made by `launched`."""
    folder = submission.folder / f"run-{draw.randrange(10**6)}"
    folder.mkdir()
    name = f"{draw.choice(['Harrow', 'Lark', 'Ember', 'Quill'])}-{draw.randrange(1, 99)}B-Instruct"
    config = {
        "command": ["vllm"],
        "model": f"/srv/models/{name}-{draw.randrange(999)}",
        "name": name,
        "device": device,
        "host": "127.0.0.1",
        "port": free_port(),
        "max_model_len": 16 * draw.randrange(16, 512),
        "max_num_seqs": draw.randrange(4, 200),
        "kv_cache_bytes": draw.randrange(2**29, 2**31),
        "gpu_memory_utilization": draw.randrange(70, 95) / 100,
        "ready_s": 20,
        "drain_s": draw.randrange(5, 40),
        "stop_s": 15,
        "run": str(folder),
        "env": {f"COURSE_{draw.randrange(10**6)}": f"{draw.randrange(10**6)}"},
    }
    return {**config, **values}


@contextmanager
def launched(
    submission: Submission, config: dict[str, Any], env: dict[str, str] | None = None, **told: Any
) -> Iterator[Launch]:
    """Give a launcher that was started with a configuration and an engine that does as it is told, until the block ends."""
    folder = Path(config["run"])
    number = len(list(folder.iterdir()))
    status = folder / f"status-{number}"
    plan = {**PLAN, **told, "seen": str(folder / "seen"), "core_port": free_port(), "env": list(config["env"])}
    (folder / f"plan-{number}").write_text(json.dumps(plan))
    program = folder / f"vllm-{number}"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{ex1_engine.__file__}" "{folder}/plan-{number}" "$@"\n')
    program.chmod(0o755)
    file = folder / f"config-{number}.json"
    file.write_text(json.dumps({**config, "command": [str(program)]}))
    command = ["python", "-S", ex1_watch.__file__, str(status), sys.executable, "launcher.py", str(file)]
    with submission.start(command, env=env) as running:
        yield Launch(running, plan, config, status)
