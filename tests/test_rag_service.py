"""The retrieval service answers, streams, declines, keeps to roles, and says what is away: against a model server whose faults are known."""

import asyncio
import json
import threading
import time

import httpx
import pytest
from aiohttp import web
from test_rag import filled, hashing, paper

from llminfra.rag import answer, index, retrieve, service, stores

SAID = ["The cache ", "holds ", "sixteen blocks."]


class Model:
    """Speaks the engine's chat protocol: streams SAID, or does what `fault` says."""

    def __init__(self):
        self.fault, self.bodies = None, []

    async def chat(self, request):
        self.bodies.append(await request.json())
        if self.fault == "silence":
            await asyncio.sleep(3)
        if self.fault == "refuse":
            return web.json_response({"error": {"message": "overloaded"}}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in SAID if self.fault != "break" else SAID[:1]:
            said = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": piece}}],
            }
            await response.write(f"data: {json.dumps(said)}\n\n".encode())
        if self.fault == "break":
            await response.write(b"data: " + json.dumps({"error": {"message": "gone", "code": 500}}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, request):
        if self.fault:
            return web.json_response({}, status=500)
        return web.json_response({"object": "list", "data": []})


@pytest.fixture(scope="module")
def running():
    """A running model server: its base URL in `.url`."""
    server, started, loop = Model(), threading.Event(), asyncio.new_event_loop()

    async def run():
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.chat)
        app.router.add_get("/v1/models", server.models)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        server.runner = runner
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        started.set()

    loop.create_task(run())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert started.wait(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.runner.cleanup(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


class Sure:
    """A reranker whose confidence a test sets."""

    def __init__(self, chance):
        self.chance = chance

    def judged(self, made, question, roles):
        return retrieve.hybrid(made, question, 10, roles), self.chance


@pytest.fixture
def served(running, tmp_path, monkeypatch):
    """Call the service over two documents: `served(body, token=None, chance=0.9, **settings)` gives the response."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    running.fault, running.bodies = None, []
    made = filled(
        index.Index(stores.open_store("exact:", "served", 32), hashing()),
        [
            paper("open", "The cache holds sixteen blocks."),
            paper("closed", "The salary of the director of the cache.", "hr"),
        ],
    )

    def ask(body, token=None, chance=0.9, path="/ask", **changes):
        setting = service.Settings(running.url, "m", {"hr-token": frozenset({"hr"})}, 0.5, **changes)
        app = service.create(made, Sure(chance), setting, lambda text: len(text.split()))

        async def send():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                got = await (client.post(path, json=body, headers=headers) if body is not None else client.get(path))
                measured = (await client.get("/metrics")).text
                return got, measured

        got, ask.metrics = asyncio.run(send())
        return got

    ask.index, ask.model = made, running
    return ask


def events(response):
    return [
        (part.split("\n")[0][7:], json.loads(part.split("\ndata: ")[1])) for part in response.text.strip().split("\n\n")
    ]


def test_an_answer_names_the_passage_it_was_given(served):
    said = served({"question": "How many blocks are in the cache?"}).json()
    assert said["answer"] == "The cache holds sixteen blocks. [1]" and not said["declined"]
    [source] = said["sources"]
    assert (
        source["document"] == "open" and source["text"] == "The cache holds sixteen blocks." and source["number"] == 1
    )
    assert (
        'rag_questions_total{outcome="answered"} 1.0' in served.metrics
        and 'rag_stage_seconds_count{stage="search"} 1.0' in served.metrics
    )
    assert served.model.bodies[0]["temperature"] == 0 and "director" not in json.dumps(served.model.bodies)


def test_a_stream_brings_tokens_and_then_the_reply(served):
    said = events(served({"question": "How many blocks are in the cache?", "stream": True}))
    assert [name for name, _ in said] == ["token"] * len(SAID) + ["reply"]
    assert "".join(data["text"] for name, data in said if name == "token") == "".join(SAID)
    assert (
        said[-1][1]["answer"] == "The cache holds sixteen blocks. [1]"
        and said[-1][1]["sources"][0]["document"] == "open"
    )


def test_only_a_token_with_the_role_reads_what_is_restricted(served):
    def prompted(token):
        served({"question": "What is the salary of the director?"}, token)
        return "salary of the director of the cache" in json.dumps(served.model.bodies.pop())

    assert not prompted(None) and prompted("hr-token")
    wrong = served({"question": "What is the salary of the director?"}, "guessed")
    assert wrong.status_code == 401 and "is not known" in wrong.json()["detail"] and not served.model.bodies


@pytest.mark.parametrize("stream", [False, True])
def test_below_the_threshold_it_declines_and_asks_no_model(served, stream):
    got = served({"question": "Who won the race?", "stream": stream}, chance=0.4)
    said = events(got)[0][1] if stream else got.json()
    assert said == {"answer": answer.DECLINED, "declined": True, "quoted": False, "sources": [], "sure": 0.4}
    assert not served.model.bodies and 'outcome="declined"} 1.0' in served.metrics


@pytest.mark.parametrize("fault", ["silence", "refuse", "break"])
def test_a_model_that_is_away_is_said_in_time(served, fault):
    served.model.fault = fault
    begin = time.monotonic()
    got = served({"question": "How many blocks?"}, answer_timeout_s=1)
    assert got.status_code == 503 and got.json()["detail"].startswith("the model does not answer: ")
    said = events(served({"question": "How many blocks?", "stream": True}, answer_timeout_s=1))
    assert said[-1][0] == "error" and time.monotonic() - begin < 20
    assert 'outcome="model away"} 1.0' in served.metrics


def test_a_store_that_is_away_or_slow_is_said(served, monkeypatch):
    def away(*_, **__):
        raise stores.StoreError("postgres:/x 'served': the server is gone")

    monkeypatch.setattr(served.index.store, "search", away)
    got = served({"question": "How many blocks?"})
    assert got.status_code == 503 and "the server is gone" in got.json()["detail"]
    monkeypatch.setattr(served.index.store, "search", lambda *_, **__: time.sleep(1) or [])
    got = served({"question": "How many blocks?"}, search_timeout_s=0.1)
    assert got.status_code == 503 and got.json()["detail"] == "search took more than 0.1 s"


@pytest.mark.parametrize("body", [{}, {"question": "?"}, {"question": "x" * 1001}, {"question": 7}])
def test_a_question_that_is_none_is_refused(served, body):
    assert served(body).status_code == 422


def test_alive_is_not_ready(served):
    assert served(None, path="/health").json() == {"status": "ok"}
    assert served(None, path="/ready").json() == {"passages": 2}
    served.model.fault = "refuse"
    assert served(None, path="/health").status_code == 200
    assert served(None, path="/ready").status_code == 503
