"""Start a vLLM server, say when it is ready, and stop it without dropping an answer: python launcher.py CONFIG.json

It needs only the standard library, so that it runs beside any version of the engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import IO, Any

LAST_LINES = 10
LOOK_S = 0.05
ASK_S = 5
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy that the environment names must not come between this program and its engine."""


def command(config: dict[str, Any]) -> list[str]:
    """Return the words that start the engine."""
    # solution R1
    # starter: raise NotImplementedError
    words = [*config["command"], "serve", config["model"], "--served-model-name", config["name"]]
    words += ["--host", config["host"], "--port", str(config["port"])]
    words += ["--max-model-len", str(config["max_model_len"]), "--max-num-seqs", str(config["max_num_seqs"])]
    words += ["--shutdown-timeout", str(config["drain_s"])]
    dtype = {"cpu": "float32", "t4": "half", "a10g": "bfloat16"}[config["device"]]
    words += ["--dtype", dtype]
    if config["device"] == "cpu":
        return [*words, "--enforce-eager", "--kv-cache-memory-bytes", str(config["kv_cache_bytes"])]
    return [*words, "--gpu-memory-utilization", str(config["gpu_memory_utilization"])]
    # end solution


def held(config: dict[str, Any]) -> IO[bytes] | None:
    """Return the lock on the port of this configuration, which lasts as long as this process; None if the port is taken."""
    # solution R5
    # starter: raise NotImplementedError
    lock = open(Path(config["run"]) / f"port-{config['port']}.lock", "wb")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config["host"], config["port"]))
    except OSError:
        lock.close()
        return None
    return lock
    # end solution


def answers(config: dict[str, Any]) -> bool:
    """Return whether the engine is healthy and has answered a completion of one token."""
    # solution R2
    # starter: raise NotImplementedError
    url = f"http://{config['host']}:{config['port']}"
    body = json.dumps({"model": config["name"], "prompt": "Hi", "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['VLLM_API_KEY']}"
    try:
        with DIRECT.open(f"{url}/health", timeout=ASK_S):
            pass
        with DIRECT.open(urllib.request.Request(f"{url}/v1/completions", body, headers), timeout=ASK_S):
            return True
    except (OSError, ValueError):  # also what urllib raises for a status that is no success
        return False
    # end solution


def tell_systemd() -> None:
    """Tell systemd that the service is ready, if systemd has started it (see sd_notify(3))."""
    # solution R2
    # starter: raise NotImplementedError
    if os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    # end solution


def end(engine: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the engine: its processes share a group."""
    # solution R3, R4
    # starter: raise NotImplementedError
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()
    # end solution


def main(path: str) -> int:
    """Run an engine until it ends or SIGTERM comes, and return the exit status."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    # solution R1, R2, R3, R4, R5
    # starter: raise NotImplementedError
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    lock = held(config)
    if lock is None:
        print(f"{config['host']}:{config['port']} is in use: stop what listens there", file=sys.stderr)
        return 2
    log = Path(config["run"]) / f"engine-{config['port']}.log"

    def last_lines(what: str) -> int:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print(what, *lines, sep="\n", file=sys.stderr)
        return 1

    with open(log, "wb") as written:
        engine = subprocess.Popen(
            command(config),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, **config["env"]},
            start_new_session=True,
        )
    try:
        deadline, ready = time.monotonic() + config["ready_s"], False
        while not stopping:
            if engine.poll() is not None:
                return last_lines(f"the engine ended with status {engine.returncode}; its last lines:")
            if not ready and time.monotonic() > deadline:
                return last_lines(f"not ready after {config['ready_s']} s; the engine's last lines:")
            if not ready and answers(config):
                ready = True
                print(f"ready http://{config['host']}:{config['port']}/v1", flush=True)
                tell_systemd()
            time.sleep(LOOK_S)
        engine.terminate()
        engine.wait(config["stop_s"])
        return 0
    except subprocess.TimeoutExpired:
        return last_lines(f"killed: it had not stopped after {config['stop_s']} s; its last lines:")
    finally:
        end(engine)
    # end solution


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python launcher.py CONFIG.json")
    sys.exit(main(sys.argv[1]))
