"""The retrieval service: FastAPI in front of an index and a served model. One endpoint answers, streamed or whole."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import openai
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

from llminfra.rag import answer
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import EVERYONE
from llminfra.rag.index import Index
from llminfra.rag.rerank import Reranker
from llminfra.rag.stores import StoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What an operator sets: the model's server, the roles of each bearer token, the chance below which it declines, times in seconds.

    `searches`: how many run at once. `answer_timeout_s`: how long one question may wait for the model in all.
    """

    base_url: str
    model: str
    tokens: Mapping[str, frozenset[str]]
    threshold: float
    passages: int = 4
    max_tokens: int = 64
    searches: int = 4
    search_timeout_s: float = 5
    answer_timeout_s: float = 60


class Question(BaseModel):
    """What a client sends."""

    question: str = Field(min_length=3, max_length=1000)
    stream: bool = False


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


def create(index: Index, reranker: Reranker, settings: Settings, count: Any) -> FastAPI:
    """Return the application, to be run once. `count` gives the tokens of a text, for the budget of the prompt."""
    searches, probes = Threads("search", settings.searches), Threads("probe", settings.searches)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        searches.close()
        probes.close()
        await client.close()

    app = FastAPI(title="Answers from documents", lifespan=life)
    registry = CollectorRegistry()
    asked = Counter("rag_questions_total", "Questions by outcome.", ["outcome"], registry=registry)
    stage = Histogram("rag_stage_seconds", "Time of each stage, also of one that failed.", ["stage"], registry=registry)
    updated = Gauge(
        "rag_index_updated_timestamp_seconds",
        "When this process last changed the index, 0 if it never did.",
        registry=registry,
    )
    updated.set_function(lambda: index.updated)
    client = openai.AsyncOpenAI(base_url=settings.base_url, api_key="none", max_retries=0)

    def readers(authorization: str | None) -> frozenset[str]:
        """The roles of the one who asks: none beyond everyone's without a token, an error for a wrong one."""
        if authorization is None:
            return frozenset({EVERYONE})
        scheme, _, given = authorization.partition(" ")
        for token, roles in settings.tokens.items():
            if scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), given.encode()):
                return roles | {EVERYONE}
        raise HTTPException(401, "this token is not known; leave it out to read what everyone may read")

    def fault(outcome: str, detail: str, status: int = 503, headers: dict[str, str] | None = None) -> HTTPException:
        """What a client gets in place of an answer; counted."""
        asked.labels(outcome).inc()
        return HTTPException(status, detail, headers)

    @contextmanager
    def guarded() -> Iterator[None]:
        """Turn what nobody expected into a fault, with its traceback in the log."""
        try:
            yield
        except HTTPException:
            raise
        except Exception:
            logging.getLogger(__name__).exception("a question failed")
            raise fault("failed", "the service failed: its log says why", 500) from None

    async def found(question: str, roles: frozenset[str]) -> tuple[list[Passage], float]:
        """The passages for the prompt, none where none fits, and the chance that they answer. HTTPException where search fails."""
        with guarded():
            try:
                begun = searches.start(reranker.judged, index, question, roles)
                with stage.labels("search").time():
                    ranked, sure = await asyncio.wait_for(begun, settings.search_timeout_s)
            except Busy:
                raise fault("search busy", "all searches are busy", headers={"Retry-After": "1"}) from None
            except StoreError as error:
                raise fault("store away", f"search does not answer: {error}") from None
            except TimeoutError:
                raise fault("search slow", f"search took more than {settings.search_timeout_s} s") from None
            try:
                return answer.fit(ranked[: settings.passages], count), sure
            except ValueError:
                return [], sure

    async def pieces(question: str, passages: list[Passage]) -> AsyncGenerator[str, None]:
        """What the model says as it comes. Only the time of waiting for it is measured and limited, not what the reader takes."""
        said: Any = answer.stream(
            client, settings.model, question, passages, settings.max_tokens, settings.answer_timeout_s
        )
        spent = 0.0
        piece: str | None = ""
        try:
            while piece is not None:
                begin = time.perf_counter()
                try:
                    async with asyncio.timeout(settings.answer_timeout_s - spent):
                        piece = await anext(said, None)
                except (openai.APIError, TimeoutError) as error:
                    raise fault("model away", f"the model does not answer: {type(error).__name__}") from None
                finally:
                    spent += time.perf_counter() - begin
                if piece:
                    yield piece
        finally:
            stage.labels("generate").observe(spent)
            await said.aclose()

    def reply(made: answer.Answer, sure: float) -> Reply:
        asked.labels("declined" if made.declined else "quoted" if made.quoted else "answered").inc()
        sources = [
            Source(number=number, document=one.document, start=one.start, end=one.end, text=one.text)
            for number, one in made.cited
        ]
        return Reply(answer=made.text, declined=made.declined, quoted=made.quoted, sources=sources, sure=round(sure, 3))

    async def answered(question: str, passages: list[Passage], sure: float) -> AsyncGenerator[str | Reply, None]:
        """What the model says, piece by piece, then the reply: checked, it may differ. Declined without passages."""
        made, said = answer.Answer((), ()), ""
        with guarded():
            if passages:
                async with aclosing(pieces(question, passages)) as spoken:
                    async for piece in spoken:
                        said += piece
                        yield piece
                with stage.labels("settle").time():
                    made = await asyncio.to_thread(answer.settle, index, question, said, passages)
            yield reply(made, sure)

    async def events(parts: AsyncGenerator[str | Reply, None]) -> AsyncIterator[str]:
        """Server-sent events: `token` for each piece, then one `reply` that replaces them, or one `error`."""
        try:
            async with aclosing(parts):
                async for part in parts:
                    if isinstance(part, str):
                        yield _event("token", {"text": part})
                    else:
                        yield _event("reply", part.model_dump())
        except HTTPException as error:
            yield _event("error", {"detail": error.detail})

    @app.post("/ask", response_model=Reply)
    async def ask(body: Question, authorization: Annotated[str | None, Header()] = None) -> Any:
        passages, sure = await found(body.question, readers(authorization))
        if sure < settings.threshold:
            passages = []  # nothing to answer from: declined, and the model is not asked
        parts = answered(body.question, passages, sure)
        if body.stream:
            return StreamingResponse(events(parts), media_type="text/event-stream")
        return [part async for part in parts][-1]

    @app.get("/health")
    def health() -> dict[str, str]:
        """The process answers: for a liveness probe."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, int]:
        """The store and the model's server answer: for a readiness probe."""
        try:
            held = await asyncio.wait_for(probes.start(index.store.count), settings.search_timeout_s)
            await client.models.list(timeout=settings.search_timeout_s)
        except (StoreError, Busy, TimeoutError, openai.APIError) as error:
            raise HTTPException(503, f"not ready: {type(error).__name__}") from None
        if not held:
            raise HTTPException(503, "not ready: the index is empty")
        return {"passages": held}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return app


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run the application on a free port of 127.0.0.1 and give its address; it is stopped when the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the service did not start on 127.0.0.1")
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
