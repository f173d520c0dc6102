"""The load generator counts what happened: against a server whose timing and faults are known."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from aiohttp import web

from llminfra import load
from llminfra.load import Request, Result

TOKENS, GAP_S, FIRST_S = 5, 0.05, 0.2


class Fake:
    """A server that streams TOKENS tokens with known gaps, or misbehaves on request."""

    def __init__(self):
        self.in_flight = self.most = 0
        self.arrivals = []

    async def completions(self, request):
        body = await request.json()
        self.arrivals.append(asyncio.get_running_loop().time())
        if body["prompt"] == "refuse":
            return web.json_response({"error": {"message": "too long"}}, status=400)
        if body["prompt"] == "silence":
            await asyncio.sleep(60)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        mark = b"data:" if body["prompt"] == "tight" else b"data: "
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for i in range(TOKENS):
                await asyncio.sleep(GAP_S if i else FIRST_S)
                if body["prompt"] == "break" and i == 2:
                    return response
                if body["prompt"].startswith("odd "):
                    await response.write(b"data: " + body["prompt"][4:].encode() + b"\n\n")
                await response.write(b": keep-alive\n\n" + mark + b'{"choices": [{"text": "x"}]}\n\n')
            await response.write(mark + b'{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}\n\n')
            await response.write(mark + b"[DONE]\n\n")
        finally:
            self.in_flight -= 1
        return response


@pytest.fixture
def fake():
    """A running fake server: its base URL in `.url`."""
    server, started = Fake(), threading.Event()
    loop = asyncio.new_event_loop()

    async def run():
        app = web.Application()
        app.router.add_post("/v1/completions", server.completions)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        started.set()

    task = loop.create_task(run())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert started.wait(10)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    assert task.done()


def test_times_and_tokens_of_a_request(fake):
    (result,) = load.closed_loop(fake.url, "m", [Request("hi", 5)], 1)
    assert result.error is None and result.text == "xxxxx"
    assert (result.prompt_tokens, result.output_tokens) == (7, 5)
    # The server cannot be earlier than its own sleeps; an upper bound would test this machine, not the code.
    assert result.ttft_s >= FIRST_S and len(result.itl_s) == 4
    assert result.e2e_s >= FIRST_S + 4 * GAP_S
    assert result.e2e_s == pytest.approx(result.ttft_s + sum(result.itl_s))
    assert result.tpot_s == pytest.approx(sum(result.itl_s) / 4)


def test_a_closed_loop_keeps_exactly_so_many_in_flight(fake):
    results = load.closed_loop(fake.url, "m", [Request("hi", 5)] * 9, 3)
    assert [r.error for r in results] == [None] * 9
    assert fake.most == 3


def test_an_open_loop_does_not_wait_for_answers(fake):
    results = load.open_loop(fake.url, "m", [Request("hi", 5)] * 8, rate_per_s=100, seed=1)
    assert [r.error for r in results] == [None] * 8
    assert fake.most >= 4
    gaps = [b - a for a, b in zip(fake.arrivals, fake.arrivals[1:], strict=False)]
    assert len({round(gap, 4) for gap in gaps}) > 3


def test_faults_stand_in_the_results(fake):
    refused, broken, fine = load.closed_loop(
        fake.url, "m", [Request("refuse", 5), Request("break", 5), Request("a", 5)], 3
    )
    assert "HTTP 400" in refused.error and "too long" in refused.error
    assert broken.error is not None
    assert fine.error is None
    measured = load.summary([refused, broken, fine])
    assert (measured.requests, measured.errors) == (3, 2)


@pytest.mark.parametrize(
    "event",
    [
        '{"choices": [{"index": 0, "text": 3}]}',
        "null",
        "[]",
        '{"choices": 3}',
        '{"usage": {"a": 1}}',
        '{"choices": [null]}',
        "x",
    ],
)
def test_an_odd_event_spoils_its_own_request_alone(fake, event):
    odd, fine = load.closed_loop(fake.url, "m", [Request(f"odd {event}", 5), Request("a", 5)], 2)
    assert odd.error and "\n" not in odd.error
    assert fine.error is None and fine.text == "xxxxx"


def test_an_event_without_text_is_passed_over(fake):
    (result,) = load.closed_loop(fake.url, "m", [Request('odd {"choices": [{"index": 0}]}', 5)], 1)
    assert result.error is None and result.text == "xxxxx"


def test_a_dead_server_and_a_spent_time_are_said(fake):
    (result,) = load.closed_loop("http://127.0.0.1:9/v1", "m", [Request("hi", 5)], 1)
    assert "Cannot connect" in result.error
    (result,) = load.closed_loop(fake.url, "m", [Request("hi", 5)], 1, timeout_s=0.1)
    assert result.error == "not done when the load's time was up"


def test_other_servers_spacing_of_events_is_read_too(fake):
    (result,) = load.closed_loop(fake.url, "m", [Request("tight", 5)], 1)
    assert result.error is None and result.text == "xxxxx" and result.output_tokens == 5


def test_a_load_ends_in_time_whatever_the_server_and_the_rate_do(fake):
    started = time.monotonic()
    slow = load.open_loop(fake.url, "m", [Request("hi", 5)] * 50, rate_per_s=1, timeout_s=1.5)
    silent = load.closed_loop(fake.url, "m", [Request("silence", 5)] * 50, 2, timeout_s=0.5)
    assert time.monotonic() - started < 30  # the 50 at one a second alone would take 50 s
    assert len(slow) == len(silent) == 50
    assert {r.error for r in silent} == {slow[-1].error} == {"not done when the load's time was up"}


# A shell that started the tests in the background may have left SIGINT ignored.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from llminfra import load
load.closed_loop(sys.argv[1], "m", [load.Request("silence", 5)] * 50, 2)
"""


def test_an_interrupt_ends_a_load(fake):
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, fake.url], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while len(fake.arrivals) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.rstrip().endswith("KeyboardInterrupt") and process.returncode == -signal.SIGINT


def test_it_works_under_a_running_event_loop(fake):
    async def cell():
        return load.closed_loop(fake.url, "m", [Request("hi", 5)], 1)

    assert asyncio.run(cell())[0].error is None


def test_percentiles_by_hand():
    assert load.percentile([4, 1, 3, 2], 50) == 2.5
    assert load.percentile([10, 20, 30, 40, 50], 90) == pytest.approx(46)
    assert load.percentile([7], 99) == 7
    assert math.isnan(load.percentile([], 50))
    with pytest.raises(ValueError, match="101"):
        load.percentile([1], 101)


def test_summary_and_goodput_by_hand():
    fast = Result(0.0, ttft_s=0.1, itl_s=[0.1, 0.1], e2e_s=0.3, prompt_tokens=10, output_tokens=3)
    slow = Result(1.0, ttft_s=0.5, itl_s=[0.25, 0.25], e2e_s=1.0, prompt_tokens=10, output_tokens=3)
    failed = Result(0.5, error="HTTP 500")
    measured = load.summary([fast, slow, failed])
    assert measured.duration_s == 2.0 and measured.requests_per_s == 1.0
    assert measured.output_tokens_per_s == 3.0 and measured.total_tokens_per_s == 13.0
    assert measured.mean_in_flight == pytest.approx(1.3 / 2)
    assert measured.ttft_s.p50 == pytest.approx(0.3) and measured.tpot_s.mean == pytest.approx(0.175)
    assert load.goodput([fast, slow, failed], ttft_s=0.2) == 0.5
    assert load.goodput([fast, slow, failed], tpot_s=0.2) == 0.5
    assert load.goodput([fast, slow, failed]) == 1.0


def test_what_must_not_be_sent_is_refused():
    with pytest.raises(load.LoadError, match=r"example\.org is not this machine"):
        load.closed_loop("http://example.org/v1", "m", [Request("hi", 1)], 1)
    for address in ("localhost:8000/v1", "127.0.0.1:8000", "/v1", "ftp://127.0.0.1/v1"):
        with pytest.raises(load.LoadError, match=r"is no address of a server: write http://127\.0\.0\.1:8000/v1"):
            load.closed_loop(address, "m", [Request("hi", 1)], 1)
    with pytest.raises(load.LoadError, match="at least 1"):
        load.closed_loop("http://127.0.0.1/v1", "m", [], 0)
    with pytest.raises(load.LoadError, match="positive"):
        load.open_loop("http://127.0.0.1/v1", "m", [], 0)
    with pytest.raises(load.LoadError, match="no results"):
        load.summary([])


def test_synthetic_requests_are_repeatable_and_differ():
    first, second = (load.synthetic_requests(4, 6, 3, seed=s) for s in (1, 2))
    assert first == load.synthetic_requests(4, 6, 3, seed=1) != second
    assert len({r.prompt for r in first}) == 4 and all(r.body["ignore_eos"] for r in first)


@pytest.fixture
def words(tmp_path):
    """A tokenizer's folder: every word a token of its own, and one special token in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "<unk>": 1, "▁a": 2, "▁b": 3, "▁c": 4, "▁d": 5}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(tmp_path)
    return str(tmp_path)


def test_prompts_have_exactly_so_many_tokens_special_ones_included(words):
    requests = load.synthetic_requests(5, 9, 3, tokenizer=words, seed=1)
    assert [len(r.prompt.split()) for r in requests] == [8] * 5
    assert requests == load.synthetic_requests(5, 9, 3, tokenizer=words, seed=1)
    with pytest.raises(load.LoadError, match="makes no prompts of 1 tokens"):
        load.synthetic_requests(1, 1, 3, tokenizer=words)
