"""The retrieval service: FastAPI in front of an index and a served model. One endpoint answers, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import openai
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import Gauge, generate_latest
from pydantic import BaseModel, Field

from llminfra import serving
from llminfra.errors import StoreError
from llminfra.rag import answer, retrieve, stages
from llminfra.rag.index import Index
from llminfra.rag.rerank import Reranker


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


def create(index: Index, reranker: Reranker, settings: Settings, count: Callable[[str], int]) -> FastAPI:
    """Return the application, to be run once. `count` gives the tokens of a text, for the budget of the prompt."""
    searches, probes = stages.Threads("search", settings.searches), stages.Threads("probe", settings.searches)
    client = openai.AsyncOpenAI(base_url=settings.base_url, api_key="none", max_retries=0)
    measured = stages.metrics()
    updated = "When this process last changed the index, 0 if it never did."
    Gauge("rag_index_updated_timestamp_seconds", updated, registry=measured.registry).set_function(
        lambda: index.updated
    )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            searches.close()
            probes.close()
            await client.close()

    app = FastAPI(title="Answers from documents", lifespan=life)
    serving.refuse_malformed(app)

    @app.exception_handler(stages.Fault)
    async def told(_: Request, fault: stages.Fault) -> JSONResponse:
        return JSONResponse({"detail": fault.detail}, fault.status, fault.headers)

    @app.post("/ask", response_model=stages.Reply)
    async def ask(body: Question, authorization: Annotated[str | None, Header()] = None) -> Any:
        asked = retrieve.ask(index, body.question, stages.readers(settings.tokens, authorization))
        with stages.counted(measured):
            found, sure = await stages.search(searches, reranker, asked, settings.search_timeout_s, measured)
            passages = stages.fitted(found[: settings.passages], count)
        if sure < settings.threshold:
            passages = []  # nothing to answer from: declined, and the model is not asked
        limit_s = settings.answer_timeout_s
        said = answer.stream(client, settings.model, body.question, passages, settings.max_tokens, limit_s)
        parts = stages.answered(asked, passages, sure, stages.spoken(said, limit_s, measured), measured)
        if body.stream:
            return StreamingResponse(stages.events(parts), media_type="text/event-stream")
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
        except (StoreError, stages.Busy, TimeoutError, openai.APIError) as error:
            raise HTTPException(503, f"not ready: {type(error).__name__}") from None
        if not held:
            raise HTTPException(503, "not ready: the index is empty")
        return {"passages": held}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(measured.registry), media_type="text/plain; version=0.0.4")

    return app
