"""A stand-in for `vllm serve` that can be told to fail: late, dead, busy, silent, cut off. Routes, bodies and options are vLLM 0.32.0's.

It needs only the standard library, so that it is up at once. It is a program, whose launcher must find it ready, and a server inside
a grader's process, for clients. `tests/test_exercise_engine.py` holds its answers against the installed vLLM's own models.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPTIONS: dict[str, str] = json.loads(Path(__file__).with_name("vllm_serve.json").read_text(encoding="utf-8"))
"""The options of vLLM's own parser, and whether each takes no value (none), one (the name of its type), or several (list)."""

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
HELD_S = 5
TYPES = {400: "BadRequestError", 401: "Unauthorized", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass
class Answer:
    """How one request is answered: a status, and for 200 a stream of these pieces of text."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = BUSY
    pieces: list[str] = field(default_factory=lambda: ["Hello", " there", "."])
    tokens: int | None = None
    first_s: float = 0.0
    gap_s: float = 0.0
    held: Callable[[int], bool] = lambda number: False
    """Each piece, by its number from 0, waits while this is true, 5 s at most."""
    cut: random.Random | None = None
    """Cuts the bytes of the stream at places that this draws, in the middle of lines and of characters."""
    stops: str = ""
    """What happens after the pieces instead of the end: `silence`, `closed`, `error`; before the status: `reset`, `mute`."""


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return vLLM's body of an error."""
    return {
        "error": {"message": message, "type": TYPES.get(status, "InternalServerError"), "param": None, "code": status}
    }


def chunk(
    model: str, delta: dict[str, Any] | None, finish: str | None = None, usage: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return an event of a streamed chat; without a delta the last one, which has the usage."""
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}] if delta is not None else []
    found: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    return {**found, "choices": choices, **({"usage": usage} if usage else {})}


def completion(model: str, text: str) -> dict[str, Any]:
    """Return the body of a completion that is not streamed."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length", "stop_reason": None}
    usage = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def chat(model: str, text: str) -> dict[str, Any]:
    """Return the body of a chat that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    usage = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def encoded(event: dict[str, Any]) -> bytes:
    """Return an event as vLLM writes it: characters as they are, not escaped."""
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


@dataclass
class Request:
    """A request that came in: when, where to, with which headers and body, and when it was done with."""

    at_s: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    sent_s: list[float] = field(default_factory=list)
    end_s: float = 0.0


class Engine:
    """What both kinds of stand-in have in common: HTTP/1.1 over asyncio, one request a connection."""

    def __init__(
        self, model: str, reply: Callable[[Request], Answer], healthy: Callable[[], bool] = lambda: True, key: str = ""
    ):
        self.model, self.reply, self.healthy, self.key = model, reply, healthy, key
        self.requests: list[Request] = []
        self.open = 0
        self.most = 0
        """Requests that were in flight at once, at most."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            headers = {name.lower(): value.strip() for name, value in re.findall(r"(?m)^([\w-]+):(.*?)\r?$", head)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(time.monotonic(), path, headers, json.loads(body or b"{}"))
            self.requests.append(request)
            self.open += 1
            self.most = max(self.most, self.open)
            try:
                await self.answer(method, request, writer)
            finally:
                self.open -= 1
                request.end_s = time.monotonic()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def answer(self, method: str, request: Request, writer: asyncio.StreamWriter) -> None:
        """Write the answer of a route."""
        guarded = request.path.startswith("/v1")
        if request.path == "/health":
            return await self.plain(writer, 200 if self.healthy() else 503, None)
        if guarded and self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return await self.plain(writer, 401, {"error": "Unauthorized"})
        if request.path == "/v1/models":
            return await self.plain(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if method != "POST" or request.path not in ("/v1/completions", "/v1/chat/completions"):
            return await self.plain(writer, 404, {"detail": "Not Found"})
        if request.body.get("model", self.model) != self.model:
            missing = f"The model `{request.body['model']}` does not exist."
            return await self.plain(writer, 404, error_body(404, missing))
        found = self.reply(request)
        if found.stops == "mute":
            await asyncio.sleep(60)
        if found.stops == "reset":
            writer.transport.abort()
        elif found.status != 200:
            await asyncio.sleep(found.first_s)
            await self.plain(writer, found.status, error_body(found.status, found.message), found.headers)
        elif not request.body.get("stream"):
            make = chat if "chat" in request.path else completion
            await self.plain(writer, 200, make(self.model, "".join(found.pieces)))
        else:
            await self.stream(request, found, writer)

    async def plain(
        self, writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        """Write a whole answer."""
        text = b"" if body is None else json.dumps(body).encode()
        lines = {
            "Content-Type": "application/json",
            "Content-Length": len(text),
            "Connection": "close",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + text)
        await writer.drain()

    async def stream(self, request: Request, found: Answer, writer: asyncio.StreamWriter) -> None:
        """Write server-sent events, in pieces that need not end where a line does."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        async for events in self.events(request, found):
            for part in cut(events, found.cut):
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await writer.drain()
                if found.cut:
                    await asyncio.sleep(0)
        if found.stops == "silence":
            await asyncio.sleep(60)
        if found.stops == "closed":
            writer.transport.abort()
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async def events(self, request: Request, found: Answer) -> AsyncIterator[bytes]:
        """Yield the bytes of events as they are sent: the role, the pieces of text, the usage, the end."""
        yield encoded(chunk(self.model, {"role": "assistant", "content": ""}))
        waits = [found.first_s, *[found.gap_s] * len(found.pieces)]
        for number, piece in enumerate(found.pieces):
            while found.held(number) and time.monotonic() < request.at_s + HELD_S:
                await asyncio.sleep(0.005)
            await asyncio.sleep(waits[number])
            finish = "stop" if number == len(found.pieces) - 1 and not found.stops else None
            request.sent_s.append(time.monotonic())
            yield encoded(chunk(self.model, {"content": piece}, finish))
        if found.stops == "error":
            yield encoded(error_body(500, "Internal server error"))
        elif found.stops:
            return
        elif (request.body.get("stream_options") or {}).get("include_usage"):
            tokens = len(found.pieces) if found.tokens is None else found.tokens
            usage = {"prompt_tokens": 7, "total_tokens": 7 + tokens, "completion_tokens": tokens}
            yield encoded(chunk(self.model, None, usage=usage))
        yield b"data: [DONE]\n\n"


def cut(data: bytes, draw: random.Random | None) -> list[bytes]:
    """Return bytes cut at drawn places, at least one of them inside a character of several bytes, if there is one."""
    if draw is None:
        return [data]
    inside = [place for place in range(1, len(data)) if data[place] & 0xC0 == 0x80]
    places = sorted({0, len(data), *draw.choices(range(1, len(data)), k=3), *draw.sample(inside, min(1, len(inside)))})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@contextmanager
def served(model: str, reply: Callable[[Request], Answer], key: str = "") -> Iterator[tuple[Engine, str]]:
    """Give a stand-in inside this process and its base URL, until the block ends."""
    engine, ready, loops = Engine(model, reply, key=key), threading.Event(), list[asyncio.AbstractEventLoop]()
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)

    ending = asyncio.Event()

    async def work() -> None:
        server = await asyncio.start_server(engine.handle, sock=listening)
        loops.append(asyncio.get_running_loop())
        ready.set()
        await ending.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield engine, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        loops[0].call_soon_threadsafe(ending.set)
        thread.join()


def parsed(args: list[str]) -> tuple[dict[str, Any], str]:
    """Return the options of a command line after `serve`, and what vLLM's parser would say against it, or "".

    The model is under `model`. An option that takes no value is True; one that takes several has a list.
    """
    found: dict[str, Any] = {}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            if "model" in found:
                return found, f"unrecognized arguments: {word}"
            found["model"] = word
            continue
        name, joined, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in OPTIONS:
            return found, f"unrecognized arguments: {word}"
        kind = OPTIONS[name]
        if kind == "none":
            found[name] = True
            continue
        values = [value] if joined else []
        while rest and not rest[0].startswith("--") and (kind == "list" or not values):
            values.append(rest.pop(0))
        if not values:
            return found, f"argument {name}: expected one argument"
        try:
            found[name] = values if kind == "list" else {"int": int, "float": float}.get(kind, str)(values[0])
        except ValueError:
            return found, f"argument {name}: invalid {kind} value: {values[0]!r}"
    return found, "" if "model" in found else "the following arguments are required: model"


def main(plan_path: str, args: list[str]) -> None:
    """Be `vllm`: load, listen, answer, drain, as the plan says, and write what was seen to its file."""
    began = time.monotonic()
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    seen = Path(plan["seen"])

    def note(**event: Any) -> None:
        with open(seen, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    said = (args[:1] != ["serve"] and f"invalid choice: {args[:1]}") or ""
    options, refused = parsed(args[1:])
    note(
        argv=args,
        env={name: os.environ.get(name) for name in (*plan["env"], "VLLM_API_KEY")},
        group=os.getpgrp() == os.getpid(),
    )
    if said or refused:
        sys.exit(f"vllm: error: {said or refused}")
    core = subprocess.Popen([sys.executable, "-S", "-c", CORE, str(plan["core_port"])], stdin=subprocess.DEVNULL)
    signal.signal(
        signal.SIGTERM,
        lambda *_: (note(signal="SIGTERM", at=time.time()), os._exit(0)) if not plan["stubborn"] else None,
    )
    noise = "INFO 11-27 06:00:00 [core.py:101] loading " + "." * 90
    print("\n".join([noise] * (plan["noise_bytes"] // len(noise))), flush=True)
    host, port = options.get("--host", "0.0.0.0"), options.get("--port", 8000)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    while time.monotonic() < began + plan["load_s"] or (plan["loads_until"] and not Path(plan["loads_until"]).exists()):
        time.sleep(0.005)
    loaded = time.monotonic()
    print("\n".join(plan["says"]), file=sys.stderr, flush=True)
    if plan["dies"]:
        os._exit(plan["dies"])  # as an engine that is out of memory: its processes stay behind

    def after(seconds: float) -> bool:
        return time.monotonic() > loaded + seconds

    def die() -> None:
        print(plan["last"], flush=True)
        os._exit(3)

    def reply(request: Request) -> Answer:
        warm = after(plan["warm_s"])
        if warm and plan["lives_s"]:
            asyncio.get_running_loop().call_later(plan["lives_s"], die)
        note(path=request.path, warm=warm, tokens=request.body.get("max_tokens"), at_s=time.monotonic())
        last = len(plan["pieces"]) - 1
        held = plan["ends_when_told"] and request.body.get("stream")
        return (
            Answer(pieces=plan["pieces"], held=lambda number: bool(held) and number == last and not ending.is_set())
            if warm
            else Answer(500, message="EngineCore is not ready")
        )

    engine = Engine(options.get("--served-model-name", [options["model"]])[0], reply, lambda: after(plan["healthy_s"]))
    engine.key = os.environ.get("VLLM_API_KEY", "")

    ending = asyncio.Event()

    async def work() -> None:
        def told() -> None:
            note(signal="SIGTERM", at=time.time())
            ending.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)
        server = await asyncio.start_server(engine.handle, sock=listening)
        if plan["lives_s"]:
            asyncio.get_running_loop().call_later(NO_QUESTION_S, die)
        await ending.wait()
        server.close()
        while plan["stubborn"] or (engine.open and options.get("--shutdown-timeout", 0)):
            await asyncio.sleep(0.01)
        note(ended=True, core=core.poll())
        os._exit(0)

    asyncio.run(work())


NO_QUESTION_S = 4.0
"""How long an engine lives that must die and was never asked for a completion."""

CORE = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(120)
"""
"""The engine core, a process of its own: whoever connects to its port knows that it is alive."""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
