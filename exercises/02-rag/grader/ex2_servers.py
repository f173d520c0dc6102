"""What stands in for the two served models: embeddings by the course's real model, and a chat that says what a test wants."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from llminfra import embed

BATCH = 32
KNOWN: dict[str, np.ndarray] = {}
"""Embeddings by their text: tests of one grading share them."""


class Service:
    """An OpenAI-compatible service: what it was sent, and how it answers."""

    def __init__(self):
        self.embedded: list[str] = []
        self.chats: list[list[dict]] = []
        self.reply: Callable[[list[dict]], str] = lambda messages: "I don't know."
        self.fail_after: int | None = None
        """Texts that are embedded before every further request is answered by 503."""
        self.url = ""

    def handle(self, path: str, body: dict) -> tuple[int, dict]:
        """Return status and body of an answer."""
        if path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            if len(texts) > BATCH:
                return 400, {"error": {"message": f"at most {BATCH} inputs, not {len(texts)}"}}
            if self.fail_after is not None and len(self.embedded) + len(texts) > self.fail_after:
                return 503, {"error": {"message": "the engine is restarting"}}
            self.embedded += texts
            new = [text for text in dict.fromkeys(texts) if text not in KNOWN]
            if new:
                KNOWN.update(zip(new, embed.minilm_int8()(new), strict=True))
            data = [{"index": place, "embedding": KNOWN[text].tolist()} for place, text in enumerate(texts)]
            return 200, {"object": "list", "data": data[::-1], "model": body["model"]}  # their order is not promised
        if path == "/v1/chat/completions":
            self.chats.append(body["messages"])
            message = {"role": "assistant", "content": self.reply(body["messages"])}
            return 200, {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        return 404, {"error": {"message": f"no such path: {path}"}}


@contextmanager
def served() -> Iterator[Service]:
    """Give a service that answers on 127.0.0.1 until the block ends."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = service.handle(self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def numbered(messages: list[dict]) -> dict[int, str]:
    """Return the passages of a prompt by their number: each begins a line of the user's message, as in `[2] …`."""
    text = "\n".join(one["content"] for one in messages if one["role"] == "user")
    parts = re.split(r"(?m)^\[(\d+)\]", text)
    return {int(number): " ".join(body.split()) for number, body in zip(parts[1::2], parts[2::2], strict=True)}


def cite(messages: list[dict], sentence: str) -> int | None:
    """Return the number of the passage in a prompt that holds a sentence, or None."""
    wanted = " ".join(sentence.removeprefix("- ").split())
    return next((number for number, body in numbered(messages).items() if wanted in body), None)
