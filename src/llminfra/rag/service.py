"""The retrieval service: FastAPI in front of an index and a served model. One endpoint answers, streamed or whole."""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import openai
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field

from llminfra.rag import answer
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import EVERYONE
from llminfra.rag.index import Index
from llminfra.rag.rerank import Reranker
from llminfra.rag.stores import StoreError


@dataclass(frozen=True)
class Settings:
    """What an operator sets: the model's server, the roles of each bearer token, the chance below which it declines, times in seconds."""

    base_url: str
    model: str
    tokens: Mapping[str, frozenset[str]]
    threshold: float
    passages: int = 4
    max_tokens: int = 64
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


def create(index: Index, reranker: Reranker, settings: Settings, count: Any) -> FastAPI:
    """Return the application. `count` gives the tokens of a text, for the budget of the prompt."""
    app = FastAPI(title="Answers from documents")
    registry = CollectorRegistry()
    asked = Counter("rag_questions_total", "Questions by outcome.", ["outcome"], registry=registry)
    stage = Histogram("rag_stage_seconds", "Time of each stage.", ["stage"], registry=registry)
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

    async def found(question: str, roles: frozenset[str]) -> tuple[list[Passage], float]:
        """The passages for the prompt and the chance that they answer. 503 where the store is away or slow."""
        begin = time.perf_counter()
        try:
            ranked, sure = await asyncio.wait_for(
                asyncio.to_thread(reranker.judged, index, question, roles), settings.search_timeout_s
            )
        except StoreError as error:
            asked.labels("store away").inc()
            raise HTTPException(503, f"search does not answer: {error}") from None
        except TimeoutError:
            asked.labels("search slow").inc()
            raise HTTPException(503, f"search took more than {settings.search_timeout_s} s") from None
        finally:
            stage.labels("search").observe(time.perf_counter() - begin)
        return answer.fit(ranked[: settings.passages], count), sure

    async def pieces(question: str, passages: list[Passage]) -> AsyncIterator[str]:
        begin = time.perf_counter()
        async for piece in answer.stream(
            client, settings.model, question, passages, settings.max_tokens, settings.answer_timeout_s
        ):
            yield piece
        stage.labels("generate").observe(time.perf_counter() - begin)

    def reply(made: answer.Answer, sure: float) -> Reply:
        asked.labels("declined" if made.declined else "quoted" if made.quoted else "answered").inc()
        sources = [
            Source(number=number, document=one.document, start=one.start, end=one.end, text=one.text)
            for number, one in made.cited
        ]
        return Reply(answer=made.text, declined=made.declined, quoted=made.quoted, sources=sources, sure=round(sure, 3))

    async def settled(question: str, said: str, passages: list[Passage]) -> answer.Answer:
        return await asyncio.to_thread(answer.settle, index, question, said, passages)

    async def events(question: str, passages: list[Passage], sure: float) -> AsyncIterator[str]:
        """Server-sent events: `token` for each piece, then one `reply`, or one `error`."""
        said = ""
        try:
            async with asyncio.timeout(settings.answer_timeout_s):
                async for piece in pieces(question, passages):
                    said += piece
                    yield _event("token", {"text": piece})
        except (openai.APIError, TimeoutError) as error:
            asked.labels("model away").inc()
            yield _event("error", {"detail": f"the model does not answer: {type(error).__name__}"})
            return
        yield _event("reply", reply(await settled(question, said, passages), sure).model_dump())

    @app.post("/ask", response_model=Reply)
    async def ask(body: Question, authorization: Annotated[str | None, Header()] = None) -> Any:
        passages, sure = await found(body.question, readers(authorization))
        if not passages or sure < settings.threshold:
            declined = reply(answer.Answer((), ()), sure)
            if not body.stream:
                return declined
            return StreamingResponse(iter([_event("reply", declined.model_dump())]), media_type="text/event-stream")
        if body.stream:
            return StreamingResponse(events(body.question, passages, sure), media_type="text/event-stream")
        try:
            async with asyncio.timeout(settings.answer_timeout_s):
                said = "".join([piece async for piece in pieces(body.question, passages)])
        except (openai.APIError, TimeoutError) as error:
            asked.labels("model away").inc()
            raise HTTPException(503, f"the model does not answer: {type(error).__name__}") from None
        return reply(await settled(body.question, said, passages), sure)

    @app.get("/health")
    def health() -> dict[str, str]:
        """The process answers: for a liveness probe."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, int]:
        """The store and the model's server answer: for a readiness probe."""
        try:
            held = await asyncio.wait_for(asyncio.to_thread(index.store.count), settings.search_timeout_s)
            await client.models.list(timeout=settings.search_timeout_s)
        except (StoreError, TimeoutError, openai.APIError) as error:
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
