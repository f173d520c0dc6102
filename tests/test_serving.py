"""Any service of ours refuses a malformed request with one message that repeats nothing, and leaves no thread."""

import asyncio
import contextlib
import logging
import threading
from typing import Annotated

import httpx
import malformed
import pytest
from fastapi import FastAPI, Header
from pydantic import BaseModel, ConfigDict, Field

from llminfra import serving
from llminfra.errors import ServiceError


class Wish(BaseModel):
    """What the service of these tests takes."""

    model_config = ConfigDict(extra="forbid")
    wish: str = Field(min_length=3, max_length=1000)
    stream: bool = False


def service(lifespan=None):
    app = FastAPI(lifespan=lifespan)
    serving.refuse_malformed(app)

    @app.post("/wishes")
    async def wishes(body: Wish, times: int = 1, age: Annotated[int, Header()] = 0):
        return body.wish

    return app


def test_a_malformed_request_is_refused_and_nothing_of_it_repeated(hold, caplog):
    with caplog.at_level(logging.DEBUG):
        hold(asyncio.run(malformed.problems(service(), "/wishes", "wish")))
    assert malformed.MARK not in caplog.text


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"content": b"\xff\xfe"}, "body: not a JSON object sent as application/json"),
        ({"content": b'{"wish": "a pony', "headers": {"Content-Type": "application/json"}}, "body: not JSON"),
        ({"json": {}}, "body.wish: missing"),
        ({"json": {"wish": "?"}}, "body.wish: string too short"),
        ({"json": {"wish": "a pony", "stream": "secret"}}, "body.stream: bool parsing"),
        ({"json": {"wish": "a pony", "secret": 1}}, "body: extra forbidden"),
        ({"json": {"wish": "a pony"}, "params": {"times": "secret"}}, "query.times: int parsing"),
        ({"json": {"wish": "a pony"}, "headers": {"age": "secret"}}, "header.age: int parsing"),
    ],
)
def test_a_refusal_says_where_and_what_kind_of_fault(sent, says):
    async def post():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=service()), base_url="http://service") as client:
            return await client.post("/wishes", **sent)

    got = asyncio.run(post())
    assert got.status_code == 422 and got.json() == {"detail": f"{says}; /openapi.json says what is accepted"}


def started_since(before):
    return [one for one in threading.enumerate() if one not in before]


def test_a_service_that_does_not_start_in_time_is_an_error_and_leaves_no_thread():
    @contextlib.asynccontextmanager
    async def stuck(_):
        await asyncio.Event().wait()
        yield

    before = set(threading.enumerate())
    with (
        pytest.raises(ServiceError, match=r"did not start on 127\.0\.0\.1 in 0\.1 s"),
        serving.serve(service(stuck), 0.1),
    ):
        pass
    assert not started_since(before)


def test_a_service_whose_start_fails_is_an_error_at_once_and_leaves_no_thread():
    @contextlib.asynccontextmanager
    async def broken(_):
        raise KeyError("no store")
        yield

    before = set(threading.enumerate())
    with pytest.raises(ServiceError, match="did not start"), serving.serve(service(broken), start_timeout_s=600):
        pass
    assert not started_since(before)


def test_a_service_that_does_not_stop_in_time_is_cancelled():
    begun = threading.Event()
    app, before = service(), set(threading.enumerate())

    @app.get("/stuck")
    async def stuck():
        begun.set()
        await asyncio.Event().wait()

    def read(url):
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}/stuck", timeout=60)

    with serving.serve(app, stop_timeout_s=0.2) as url:
        reader = threading.Thread(target=read, args=(url,))
        reader.start()
        assert begun.wait(20)
    reader.join(20)
    assert not started_since(before)
