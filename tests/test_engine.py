"""A real engine starts, answers, says why it does not, and never outlives its owner."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid

import httpx
import psutil
import pytest

from llminfra import engine, load, models
from llminfra.engine import errors

pytestmark = pytest.mark.xdist_group("engine")


@pytest.fixture(scope="module")
def folder():
    """The course's model."""
    return models.ready("cpu")


@pytest.fixture(scope="module")
def server(folder):
    """A server that the tests of this module share."""
    with engine.serve(folder) as running:
        yield running


def test_it_answers_and_counts(server):
    client = server.client()
    assert [model.id for model in client.models.list()] == [server.model] == ["SmolLM2-135M-Instruct"]
    before = server.metric("vllm:generation_tokens_total")
    text = client.completions.create(model=server.model, prompt="Hello", max_tokens=4, extra_body={"ignore_eos": True})
    assert text.usage.completion_tokens == 4
    time.sleep(1)
    assert server.metric("vllm:generation_tokens_total") == before + 4
    assert "Application startup complete" in server.log()
    with pytest.raises(KeyError):
        server.metric("vllm:no_such_metric")


def test_load_counts_what_the_server_counts(server, folder):
    requests = load.synthetic_requests(6, 20, 8, tokenizer=folder, seed=3)
    before = server.metric("vllm:prompt_tokens_total"), server.metric("vllm:request_success_total")
    results = load.closed_loop(server.base_url, server.model, requests, 3)
    assert [(r.error, r.prompt_tokens, r.output_tokens) for r in results] == [(None, 20, 8)] * 6
    assert all(len(r.itl_s) == 7 and 0 < r.ttft_s < r.e2e_s for r in results)
    time.sleep(1)
    after = server.metric("vllm:prompt_tokens_total"), server.metric("vllm:request_success_total")
    assert (after[0] - before[0], after[1] - before[1]) == (120, 6)


def test_a_port_in_use(server, folder):
    with (
        pytest.raises(engine.EngineError, match=f"port {server.port} .*in use; take another"),
        engine.serve(folder, port=server.port),
    ):
        pass


def test_a_missing_folder(tmp_path):
    for path in (str(tmp_path / "nothing"), str(tmp_path)):
        for start in (engine.serve, engine.offline):
            with pytest.raises(engine.EngineError, match=r"no such folder|no config\.json"), start(path):
                pass


def test_a_model_too_large_for_memory(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(10 * psutil.virtual_memory().total)
    for start in (engine.serve, engine.offline):
        with (
            pytest.raises(
                engine.EngineError, match=r"too large for this machine's memory: weights .* GiB are available"
            ),
            start(str(tmp_path)),
        ):
            pass


def test_an_unknown_argument_is_named_and_nothing_is_left(folder):
    with (
        pytest.raises(engine.EngineError, match="unrecognized arguments: --max-num-sequences") as failed,
        engine.serve(folder, max_num_sequences=4),
    ):
        pass
    assert failed.value.__suppress_context__ or failed.value.__context__ is None
    assert "usage" in failed.value.log
    with (
        pytest.raises(
            engine.EngineError, match="unknown engine argument 'max_num_sequences'; did you mean 'max_num_seqs'"
        ),
        engine.offline(folder, max_num_sequences=4),
    ):
        pass
    assert all("api_server" not in " ".join(p.cmdline()) or p.pid for p in psutil.Process().children())


def test_a_cache_too_small_is_told_in_the_engines_words(folder):
    words = r"KV cache is needed.*estimated maximum model length is 384"
    with pytest.raises(engine.EngineError, match=words), engine.offline(folder, num_gpu_blocks_override=4):
        pass
    with engine.offline(folder, num_gpu_blocks_override=4, max_model_len=384) as llm:
        assert llm.llm_engine.vllm_config.cache_config.num_gpu_blocks == 4


def test_engines_follow_each_other_in_one_process_without_growing(folder):
    resident = []
    for _ in range(3):
        with engine.offline(folder):
            pass
        resident.append(psutil.Process().memory_info().rss)
    assert resident[-1] - resident[0] < 300_000_000


def test_the_reason_is_the_first_that_is_no_consequence():
    log = "(EngineCore pid=1) ERROR 11-24 [core.py:1] ValueError: no room\n(APIServer) RuntimeError: Engine core initialization failed. See root cause above."
    assert errors.reason(log) == "no room"
    assert errors.reason("usage: x\nx: error: unrecognized arguments: --y") == "unrecognized arguments: --y"
    assert errors.reason("") == "it wrote nothing"
    assert errors.tidy("1 validation error for C\n  Value error, bad thing [type=value_error]\n") == "bad thing"


OWNER = """
    import sys, time
    from llminfra import engine, load, models
    with engine.serve(models.ready("cpu"), **{arguments}) as server:
        print("ready", flush=True)
        load.closed_loop(server.base_url, server.model, [load.Request("Once", 900, {{"ignore_eos": True}})] * 8, 4)
"""


@contextlib.contextmanager
def owner(token):
    """A process that starts an engine with `token` in its environment, in a group of its own."""
    code = textwrap.dedent(OWNER.format(arguments={}))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "LLMINFRA_TEST_TOKEN": token},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def marked(token):
    """The living processes that inherited the token, whatever they call themselves."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LLMINFRA_TEST_TOKEN") == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_killing_the_owner_during_start_up_leaves_nothing(how):
    token = uuid.uuid4().hex
    with owner(token) as process:
        # The owner, the guard, the API server, and the engine core it has begun to start.
        wait_until(lambda: len(marked(token)) >= 5, 120)
        (os.killpg if how == signal.SIGKILL else os.kill)(process.pid, how)
        process.wait(60)
        wait_until(lambda: not marked(token), 40)


def test_killing_the_owner_during_load_leaves_nothing():
    token = uuid.uuid4().hex
    with owner(token) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        assert len(marked(token)) >= 4
        process.kill()
        process.wait(10)
        wait_until(lambda: not marked(token), 20)


def test_the_server_drains_if_told_to(folder):
    with engine.serve(folder, shutdown_timeout=20) as running:
        lines = []
        body = {"model": running.model, "prompt": "Once", "max_tokens": 60, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{running.base_url}/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if not lines:
                    running.terminate()
                lines.append(line)
        assert "data: [DONE]" in lines
        assert running.wait(30) == 0
        with pytest.raises((httpx.HTTPError, OSError)):
            socket.create_connection(("127.0.0.1", running.port), 2)
