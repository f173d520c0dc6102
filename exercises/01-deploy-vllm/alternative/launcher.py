"""Another launcher: asyncio, psutil for the engine's processes, a name in the kernel's abstract namespace for the lock."""

import asyncio
import collections
import json
import os
import pathlib
import signal
import socket
import sys

import aiohttp
import psutil

FLAGS = {"cpu": ("float32", "--enforce-eager"), "t4": ("float16",), "a10g": ("bfloat16",)}


def command(config):
    """Return the command of the engine."""
    options = {
        "host": config["host"],
        "port": config["port"],
        "served-model-name": config["name"],
        "max-model-len": config["max_model_len"],
        "max-num-seqs": config["max_num_seqs"],
        "shutdown-timeout": config["drain_s"],
        "generation-config": "vllm",
    }
    dtype, *flags = FLAGS[config["device"]]
    options["dtype"] = dtype
    if config["device"] == "cpu":
        options["kv-cache-memory-bytes"] = config["kv_cache_bytes"]
    else:
        options["gpu-memory-utilization"] = config["gpu_memory_utilization"]
    return [
        *config["command"],
        "serve",
        config["model"],
        *flags,
        *(f"--{name}={value}" for name, value in options.items()),
    ]


class Refused(Exception):
    """The port is taken."""


def claim(config):
    """Return a socket whose name no second launcher can have. Raises Refused."""
    where = f"{config['host']}:{config['port']}"
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0vllm {where}")
        socket.create_server((config["host"], config["port"])).close()
    except OSError as error:
        raise Refused(f"{where}: {os.strerror(error.errno)}") from None
    return name


async def probe(config):
    """Return once the engine has answered."""
    base = f"http://{config['host']}:{config['port']}"
    key = os.environ.get("VLLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": config["name"], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            try:
                async with session.get(f"{base}/health") as health:
                    health.raise_for_status()
                async with session.post(f"{base}/v1/chat/completions", json=body, headers=headers) as answer:
                    answer.raise_for_status()
                    return
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)


def notify():
    """Tell systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
            opened.connect("\0" + address[1:] if address.startswith("@") else address)
            opened.sendall(b"READY=1\nSTATUS=serving")


def kill(session):
    """Kill every process of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                process.kill()
        except (psutil.Error, OSError):
            pass


async def run(config):
    """Run the engine."""
    log = pathlib.Path(config["run"], f"{config['port']}.log")
    environment = dict(os.environ)
    environment.update(config["env"])
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)

    def complain(what):
        with open(log, errors="replace") as file:
            sys.stderr.writelines([f"{what}\n", *collections.deque(file, 10)])
        return 1

    with open(log, "wb") as file:
        program, *arguments = command(config)
        engine = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdout=file,
            stderr=file,
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    ended, stop = asyncio.create_task(engine.wait()), asyncio.create_task(told.wait())
    ready = asyncio.create_task(probe(config))
    try:
        await asyncio.wait({ended, stop, ready}, timeout=config["ready_s"], return_when=asyncio.FIRST_COMPLETED)
        if not (ended.done() or stop.done() or ready.done()):
            return complain("not ready in time")
        if ready.done() and not ended.done():
            print(f"ready http://{config['host']}:{config['port']}/v1", flush=True)
            notify()
        await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            return complain(f"the engine ended with status {engine.returncode}")
        engine.terminate()
        await asyncio.wait({ended}, timeout=config["stop_s"])
        return 0 if ended.done() else complain("it did not stop")
    finally:
        ready.cancel()
        kill(engine.pid)


if __name__ == "__main__":
    with open(sys.argv[1]) as opened:
        settings = json.load(opened)
    try:
        lock = claim(settings)
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(run(settings)))
