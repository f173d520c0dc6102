"""What the service does with a question, a stage each: who may read what, search, generation, settling, events."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import openai
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import BaseModel

from llminfra.errors import BudgetError, StoreError
from llminfra.rag import answer
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import EVERYONE
from llminfra.rag.rerank import Reranker
from llminfra.rag.retrieve import Asked, Found

T = TypeVar("T")


class Source(BaseModel):
    """A passage that the answer cites."""

    number: int
    document: str
    start: int
    end: int
    text: str


class Reply(BaseModel):
    """What a client gets, whole or as the last event of a stream."""

    answer: str
    declined: bool
    quoted: bool
    sources: list[Source]
    sure: float


class Fault(Exception):
    """A question that ends without a reply: `outcome` is how it is counted, the rest what the client gets."""

    def __init__(self, outcome: str, detail: str, status: int = 503, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.outcome, self.detail, self.status, self.headers = outcome, detail, status, headers


@dataclass(frozen=True)
class Metrics:
    """What is measured of questions: how they end, and the seconds of each stage."""

    registry: CollectorRegistry
    outcomes: Counter
    seconds: Histogram


def metrics() -> Metrics:
    """Return metrics in a registry of their own, so that several services in a process do not share them."""
    registry = CollectorRegistry()
    time_of = "Time of each stage, also of one that failed."
    return Metrics(
        registry,
        Counter("rag_questions_total", "Questions by outcome.", ["outcome"], registry=registry),
        Histogram("rag_stage_seconds", time_of, ["stage"], registry=registry),
    )


@contextmanager
def counted(measured: Metrics) -> Iterator[None]:
    """Count each fault; what nobody expected becomes one, with its traceback in the log."""
    try:
        yield
    except Fault as fault:
        measured.outcomes.labels(fault.outcome).inc()
        raise
    except Exception:
        logging.getLogger(__name__).exception("a question failed")
        measured.outcomes.labels("failed").inc()
        raise Fault("failed", "the service failed: its log says why", 500) from None


class Busy(Exception):
    """All threads are at work."""


class Threads:
    """So many threads for calls that may get stuck: who waits can give up, and a thread counts as busy until its call really ends."""

    def __init__(self, name: str, size: int):
        self.pool, self.free = ThreadPoolExecutor(size, name), threading.Semaphore(size)

    def start(self, call: Callable[..., T], *given: Any) -> asyncio.Future[T]:
        """Return the future of a call that has begun. Raises Busy at once where no thread is free."""
        if not self.free.acquire(blocking=False):
            raise Busy
        begun = self.pool.submit(call, *given)
        begun.add_done_callback(lambda _: self.free.release())
        return asyncio.wrap_future(begun)

    def close(self) -> None:
        """Let the threads end, each after its call; nothing can be started any more."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def readers(tokens: Mapping[str, frozenset[str]], authorization: str | None) -> frozenset[str]:
    """Return the roles of the one who asks: everyone's, and without a header no others. Raises HTTPException 401 for a wrong one."""
    if authorization is None:
        return frozenset({EVERYONE})
    scheme, _, given = authorization.partition(" ")
    for token, roles in tokens.items():
        if scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), given.encode()):
            return roles | {EVERYONE}
    raise HTTPException(401, "this token is not known; leave it out to read what everyone may read")


async def search(
    threads: Threads, reranker: Reranker, asked: Asked, timeout_s: float, measured: Metrics
) -> tuple[list[Found], float]:
    """Return the candidates, best first, and the chance that they answer. Raises Fault where no thread is free, or none answers."""
    try:
        begun = threads.start(reranker.judged, asked)
        with measured.seconds.labels("search").time():
            return await asyncio.wait_for(begun, timeout_s)
    except Busy:
        raise Fault("search busy", "all searches are busy", headers={"Retry-After": "1"}) from None
    except StoreError as error:
        raise Fault("store away", f"search does not answer: {error}") from None
    except TimeoutError:
        raise Fault("search slow", f"search took more than {timeout_s} s") from None


def fitted(found: Sequence[Found], count: Callable[[str], int]) -> list[Passage]:
    """Return the passages that the prompt holds, none where not even one fits; `count` gives the tokens of a text."""
    try:
        return answer.fit(found, count)
    except BudgetError:
        return []


async def spoken(pieces: AsyncGenerator[str, None], timeout_s: float, measured: Metrics) -> AsyncGenerator[str, None]:
    """Yield what the model says as it comes, and close it at the end. Raises Fault where the model fails or is slow.

    Only the time of waiting for the model is measured and limited, not what the reader takes.
    """
    spent = 0.0
    piece: str | None = ""
    try:
        while piece is not None:
            begin = time.perf_counter()
            try:
                async with asyncio.timeout(timeout_s - spent):
                    piece = await anext(pieces, None)
            except (openai.APIError, TimeoutError) as error:
                raise Fault("model away", f"the model does not answer: {type(error).__name__}") from None
            finally:
                spent += time.perf_counter() - begin
            if piece:
                yield piece
    finally:
        measured.seconds.labels("generate").observe(spent)
        await pieces.aclose()


async def answered(
    asked: Asked, passages: Sequence[Passage], sure: float, pieces: AsyncGenerator[str, None], measured: Metrics
) -> AsyncGenerator[str | Reply, None]:
    """Yield the pieces that the model says, then the reply: checked, it may differ. Raises Fault, counted.

    Without passages the reply declines, and `pieces` is not begun: the model is not asked.
    """
    made, said = answer.Answer((), ()), ""
    with counted(measured):
        if passages:
            async with aclosing(pieces):
                async for piece in pieces:
                    said += piece
                    yield piece
            with measured.seconds.labels("settle").time():
                made = await asyncio.to_thread(answer.settle, asked, said, passages)
        measured.outcomes.labels("declined" if made.declined else "quoted" if made.quoted else "answered").inc()
        yield reply(made, sure)


def reply(made: answer.Answer, sure: float) -> Reply:
    """Return an answer as a client gets it."""
    sources = [
        Source(number=number, document=one.document, start=one.start, end=one.end, text=one.text)
        for number, one in made.cited
    ]
    return Reply(answer=made.text, declined=made.declined, quoted=made.quoted, sources=sources, sure=round(sure, 3))


async def events(parts: AsyncGenerator[str | Reply, None]) -> AsyncIterator[str]:
    """Yield server-sent events: `token` for each piece, then one `reply` that replaces them, or one `error`."""
    try:
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, str):
                    yield event("token", {"text": part})
                else:
                    yield event("reply", part.model_dump())
    except Fault as fault:
        yield event("error", {"detail": fault.detail})


def event(name: str, data: Mapping[str, Any]) -> str:
    """Return one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
