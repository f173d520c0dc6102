"""What every service of ours does alike: refuse a malformed request without repeating it, and run in a thread for a page or a test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from llminfra.errors import ServiceError


def refuse_malformed(app: FastAPI) -> None:
    """Answer each request that is not valid with status 422 and one message, which repeats nothing of what was sent.

    The framework's own answer holds the input: it fails with 500 where that is no text that JSON can carry, such as half of a
    surrogate pair, NaN or bytes; and it puts what users wrote into the logs of whatever handles the answer.
    """

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": refusal(error.errors())}, 422)


KINDS = {
    "json_invalid": "not JSON",
    "model_attributes_type": "not a JSON object sent as application/json",
}
"""What clients are told of errors whose kind, as pydantic names it, says too little."""


def refusal(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return where the first error is and of which kind: words of the schema and of pydantic, none of the input.

    The place ends at a field of the body, since below it a name can be the client's, as that of a forbidden field is.
    """
    first = errors[0]
    depth = 1 if first["type"] == "extra_forbidden" else 2
    place = ".".join(name for name in first["loc"][:depth] if isinstance(name, str))
    kind = KINDS.get(first["type"], first["type"].replace("_", " "))
    return f"{place}: {kind}; /openapi.json says what is accepted"


@contextmanager
def serve(app: FastAPI, start_timeout_s: float = 30, stop_timeout_s: float = 10) -> Iterator[str]:
    """Run the application on a free port of 127.0.0.1 and give its address; it is stopped when the block ends.

    What has not stopped by itself after `stop_timeout_s` is cancelled. Raises ServiceError where it does not start in time.
    """
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    cancel: Future[Callable[[], object]] = Future()

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task
        cancel.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        with suppress(asyncio.CancelledError, SystemExit):  # uvicorn exits where an application fails to start
            await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + start_timeout_s
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ServiceError(
                    f"the service did not start on 127.0.0.1 in {start_timeout_s:g} s: its log, or what its start waits for, says why"
                )
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(stop_timeout_s if server.started else 0)
        if thread.is_alive():
            with suppress(RuntimeError):  # it ended meanwhile: its loop is closed
                cancel.result()()
            thread.join(stop_timeout_s)
