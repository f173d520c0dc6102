"""The retrieval service answers, streams, declines, keeps to roles, and says what is away: against a model server whose faults are known."""

import asyncio
import contextlib
import json
import logging
import re
import threading
import time

import httpx
import malformed
import pytest
from aiohttp import web
from small_index import paper, small_index
from starlette.requests import ClientDisconnect

from llminfra import serving, stores
from llminfra.rag import answer, retrieve, service, stages

pytestmark = pytest.mark.heavy

SAID = ["The cache ", "holds ", "sixteen blocks."]


class Model:
    """Speaks the engine's chat protocol: streams `said`, or does what `fault` says."""

    def __init__(self):
        self.fault, self.said, self.bodies = None, SAID, []

    async def chat(self, request):
        self.bodies.append(await request.json())
        if self.fault == "silence":
            await asyncio.sleep(3)
        if self.fault == "refuse":
            return web.json_response({"error": {"message": "overloaded"}}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in self.said[:1] if self.fault in ("break", "stall", "drop") else self.said:
            said = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": piece}}],
            }
            await response.write(f"data: {json.dumps(said)}\n\n".encode())
            await asyncio.sleep(0.4 if self.fault == "drip" else 0)
        if self.fault == "stall":
            await asyncio.sleep(3)
        if self.fault == "drop":
            request.transport.abort()
        if self.fault == "break":
            await response.write(b"data: " + json.dumps({"error": {"message": "gone", "code": 500}}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, request):
        if self.fault == "refuse":
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

    def judged(self, asked):
        return retrieve.hybrid(asked, 10), self.chance


@pytest.fixture
def served(running, tmp_path, monkeypatch):
    """Call the service over two documents: `served(body, token=None, path="/ask", **settings)` gives the response.

    `.app(**settings)` gives an application to call more than once, within `calls`.
    """
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    running.fault, running.said, running.bodies = None, SAID, []
    made = small_index(
        paper("open", "The cache holds sixteen blocks."),
        paper("closed", "The salary of the director of the cache.", "hr"),
    )

    def app(chance=0.9, count=lambda text: len(text.split()), **changes):
        setting = service.Settings(running.url, "m", {"hr-token": frozenset({"hr"})}, 0.5, **changes)
        return service.create(made, Sure(chance), setting, count)

    def ask(body, token=None, path="/ask", **changes):
        async def send():
            async with calls(app(**changes)) as client:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                got = await (client.post(path, json=body, headers=headers) if body is not None else client.get(path))
                return got, (await client.get("/metrics")).text

        got, ask.metrics = asyncio.run(send())
        return got

    ask.app, ask.index, ask.model = app, made, running
    return ask


@contextlib.asynccontextmanager
async def calls(app):
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as one,
    ):
        yield one


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


@pytest.mark.parametrize("stream", [False, True])
def test_where_no_passage_fits_it_declines(served, stream):
    got = served({"question": "How many blocks are in the cache?", "stream": stream}, count=lambda text: 10_000)
    assert got.status_code == 200
    said = events(got)[0][1] if stream else got.json()
    assert said["answer"] == answer.DECLINED and said["declined"]
    assert not served.model.bodies and 'rag_questions_total{outcome="declined"} 1.0' in served.metrics


def test_the_reply_replaces_tokens_that_no_passage_supports(served):
    served.model.said = ["Bananas ", "are blue."]
    said = events(served({"question": "How many blocks are in the cache?", "stream": True}))
    assert [data["text"] for name, data in said if name == "token"] == served.model.said
    name, last = said[-1]
    assert name == "reply" and last["quoted"] and not last["declined"] and "Bananas" not in last["answer"]
    assert "The cache holds sixteen blocks. [1]" in last["answer"] and last["sources"]
    assert 'rag_questions_total{outcome="quoted"} 1.0' in served.metrics


@pytest.mark.parametrize("fault", ["silence", "refuse", "break", "stall", "drop", "drip"])
def test_a_model_that_is_away_is_said_in_time(served, fault):
    served.model.fault = fault
    begin = time.monotonic()
    got = served({"question": "How many blocks?"}, answer_timeout_s=1)
    assert got.status_code == 503 and got.json()["detail"].startswith("the model does not answer: ")
    said = events(served({"question": "How many blocks?", "stream": True}, answer_timeout_s=1))
    assert said[-1][0] == "error" and time.monotonic() - begin < 20
    assert 'outcome="model away"} 1.0' in served.metrics
    assert 'rag_stage_seconds_count{stage="generate"} 1.0' in served.metrics
    assert 'stage="settle"' not in served.metrics


def read(app, reader, after=lambda: None):
    """Stream an answer to a reader whose coroutine is called with each message; gives the text it took, and the metrics."""

    async def run():
        body, taken = json.dumps({"question": "How many blocks are in the cache?", "stream": True}).encode(), []
        asked = asyncio.Queue()
        asked.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def send(message):
            await reader(message)
            taken.append(message.get("body", b"").decode())

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/ask",
            "raw_path": b"/ask",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        async with calls(app) as client:
            with contextlib.suppress(ClientDisconnect):
                await app(scope, asked.get, send)
            await asyncio.sleep(0.1)
            after()
            return "".join(taken), (await client.get("/metrics")).text

    return asyncio.run(run())


async def slow(message):
    await asyncio.sleep(0.8 if message.get("body") else 0)


def test_a_slow_reader_takes_nothing_from_the_model_s_time(served):
    text, metrics = read(served.app(answer_timeout_s=1.5), slow)
    assert re.findall("event: (.*)", text) == ["token"] * len(SAID) + ["reply"]
    assert 'outcome="answered"} 1.0' in metrics
    assert float(re.search(r'rag_stage_seconds_sum{stage="generate"} (\S+)', metrics)[1]) < 1.5


def test_a_slow_reader_is_told_of_a_model_that_stalls(served):
    served.model.fault = "stall"
    text, metrics = read(served.app(answer_timeout_s=1), slow)
    assert re.findall("event: (.*)", text) == ["token", "error"]
    assert 'outcome="model away"} 1.0' in metrics


def test_a_reader_that_leaves_ends_the_model_s_answer(served, monkeypatch):
    kept, ended = [], []

    async def said(*_):
        try:
            for piece in SAID:
                yield piece
        finally:
            ended.append(True)

    def stream(*given):
        kept.append(said(*given))  # so that it is closed, not only collected
        return kept[-1]

    async def leaves(message):
        if message.get("body"):
            raise OSError("gone")

    monkeypatch.setattr(answer, "stream", stream)
    _, metrics = read(served.app(), leaves, lambda: ended.append("the end of the loop, which closes all"))
    assert ended[0] is True and 'rag_stage_seconds_count{stage="generate"} 1.0' in metrics


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["search", "generate", "settle"])
def test_what_nobody_expected_is_said_counted_and_logged(served, monkeypatch, caplog, where, stream):
    def breaks(*_, **__):
        raise KeyError("a bug")

    async def half(*_):
        yield "The cache "
        breaks()

    owner, name = {"search": (Sure, "judged"), "generate": (answer, "stream"), "settle": (answer, "settle")}[where]
    monkeypatch.setattr(owner, name, half if where == "generate" else breaks)
    got = served({"question": "How many blocks are in the cache?", "stream": stream})
    detail = "the service failed: its log says why"
    if stream and where != "search":
        assert got.status_code == 200 and events(got)[-1] == ("error", {"detail": detail})
        assert [name for name, _ in events(got)].count("error") == 1 and "reply" not in got.text
    else:
        assert got.status_code == 500 and got.json() == {"detail": detail}
    assert 'rag_questions_total{outcome="failed"} 1.0' in served.metrics
    assert f'rag_stage_seconds_count{{stage="{where}"}} 1.0' in served.metrics
    [record] = [one for one in caplog.records if one.name == stages.__name__]
    assert record.exc_info[0] is KeyError
    assert "many blocks" not in caplog.text and "sixteen" not in caplog.text


def test_a_store_that_is_away_or_slow_is_said(served, monkeypatch):
    def away(*_, **__):
        raise stores.StoreError("postgres:/x 'served': the server is gone")

    monkeypatch.setattr(served.index.store, "search", away)
    got = served({"question": "How many blocks?"})
    assert got.status_code == 503 and "the server is gone" in got.json()["detail"]
    monkeypatch.setattr(served.index.store, "search", lambda *_, **__: time.sleep(1) or [])
    got = served({"question": "How many blocks?"}, search_timeout_s=0.1)
    assert got.status_code == 503 and got.json()["detail"] == "search took more than 0.1 s"


def test_searches_that_are_stuck_stop_neither_the_probes_nor_later_searches(served, monkeypatch):
    stuck, begun = threading.Event(), []
    search = Sure.judged

    def judged(*given):
        begun.append(True)
        stuck.wait(20)
        return search(*given)

    monkeypatch.setattr(Sure, "judged", judged)
    body = {"question": "How many blocks are in the cache?"}

    async def run():
        async with calls(served.app(searches=2, search_timeout_s=1)) as client:
            late = await asyncio.gather(*[client.post("/ask", json=body) for _ in range(2)])
            assert [one.json()["detail"] for one in late] == ["search took more than 1 s"] * 2
            for stream in (False, True):
                busy = await client.post("/ask", json=body | {"stream": stream})
                assert busy.status_code == 503 and busy.json()["detail"] == "all searches are busy"
                assert int(busy.headers["Retry-After"]) > 0
            assert len(begun) == 2
            assert [(await client.get(path)).status_code for path in ("/ready", "/health")] == [200, 200]
            stuck.set()
            deadline = time.monotonic() + 30
            while (got := await client.post("/ask", json=body)).status_code == 503 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert got.status_code == 200
            return (await client.get("/metrics")).text

    try:
        metrics = asyncio.run(run())
    finally:
        stuck.set()
    assert 'outcome="search slow"} 2.0' in metrics and 'outcome="answered"} 1.0' in metrics
    assert float(re.search(r'outcome="search busy"} (\S+)', metrics)[1]) >= 2
    assert 'rag_stage_seconds_count{stage="search"} 3.0' in metrics


def test_probes_that_are_stuck_do_not_pile_up(served, monkeypatch):
    stuck, begun = threading.Event(), []

    def count():
        begun.append(True)
        stuck.wait(60)
        return 2

    monkeypatch.setattr(served.index.store, "count", count)

    async def run():
        async with calls(served.app(searches=2, search_timeout_s=1)) as client:
            for _ in range(40):  # more than asyncio's own threads on most machines
                got = await client.get("/ready")
                assert got.status_code == 503 and got.json()["detail"].startswith("not ready: ")
            return await client.post("/ask", json={"question": "How many blocks are in the cache?"})

    try:
        assert asyncio.run(asyncio.wait_for(run(), 60)).status_code == 200
    finally:
        stuck.set()
    assert len(begun) == 2


def test_its_threads_end_with_it(served):
    before = set(threading.enumerate())

    def threads():
        names = [one.name for one in threading.enumerate() if one not in before]
        return sorted(name.partition("_")[0] for name in names if name.startswith(("search_", "probe_")))

    with serving.serve(served.app()) as url:
        httpx.get(f"{url}/ready").raise_for_status()
        httpx.post(f"{url}/ask", json={"question": "How many blocks are in the cache?"}).raise_for_status()
        assert threads() == ["probe", "search"]
    deadline = time.monotonic() + 30
    while threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not threads()


def test_freshness_is_measured(served):
    def updated():
        served({"question": "How many blocks are in the cache?"})
        assert 'rag_stage_seconds_count{stage="settle"} 1.0' in served.metrics
        return float(re.search(r"^rag_index_updated_timestamp_seconds (\S+)$", served.metrics, re.MULTILINE)[1])

    first = updated()
    assert first == served.index.updated and abs(time.time() - first) < 60
    served.index.replace(paper("new", "The cache was emptied."))
    assert updated() == served.index.updated > first


@pytest.mark.parametrize("body", [{}, {"question": "?"}, {"question": "x" * 1001}, {"question": 7}])
def test_a_question_that_is_none_is_refused(served, body):
    assert served(body).status_code == 422


def test_a_malformed_request_is_refused_repeated_nowhere_and_asks_nothing(served, hold, caplog):
    app = served.app()
    with caplog.at_level(logging.DEBUG):
        hold(asyncio.run(malformed.problems(app, "/ask", "question")))
    assert malformed.MARK not in caplog.text and not served.model.bodies


def test_alive_is_not_ready(served):
    assert served(None, path="/health").json() == {"status": "ok"}
    assert served(None, path="/ready").json() == {"passages": 2}
    served.model.fault = "refuse"
    assert served(None, path="/health").status_code == 200
    assert served(None, path="/ready").status_code == 503
