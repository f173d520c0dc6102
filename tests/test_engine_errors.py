"""What an engine's log and arguments are made into; nothing is started here."""

import importlib
import os
import subprocess
import sys

import pytest

from llminfra import engine
from llminfra.engine import settings
from llminfra.engine.diagnosis import reason
from llminfra.engine.server import _flags

CORE = "(EngineCore pid=7) ERROR 11-24 13:40:29 [core.py:1431] "
AFTERMATH = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}\n"
)


@pytest.mark.parametrize(
    ("log", "status", "expected"),
    [
        (
            f"{CORE}Traceback (most recent call last):\n"
            f"{CORE}safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata\n{AFTERMATH}",
            1,
            "Error while deserializing header: incomplete metadata; "
            "a weights file is damaged or not whole: make or fetch it again",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ParallelConfig\n"
            "  Value error, World size is wrong. [type=value_error, input_value=ArgsKwargs((), {'a': 1}), input_type=A]\n"
            "    For further information visit https://errors.pydantic.dev/2.13/v/value_error\n",
            1,
            "World size is wrong.",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\n"
            "block_size\n  Input should be a valid integer [type=int_type, input_value='x', input_type=str]\n",
            1,
            "block_size: Input should be a valid integer",
        ),
        (
            "usage: api_server.py [-h] [--max-num-seqs N]\napi_server.py: error: argument --max-num-seqs: "
            "invalid int value: 'abc'\n",
            2,
            "argument --max-num-seqs: invalid int value: 'abc'",
        ),
        (
            "usage: api_server.py [-h] [--enable-lora | --no-enable-lora]\napi_server.py: error: unrecognized "
            "arguments: --no-enable-lorra\n",
            2,
            "unknown engine argument 'enable_lorra'; did you mean 'enable_lora'?",
        ),
        ("OSError: [Errno 98] Address already in use\n", 1, "another program took the port"),
        (AFTERMATH.replace("{'EngineCore': 1}", "{}"), 1, "killed without a word, most likely for lack of memory"),
        (AFTERMATH.replace("1}", "-9}"), 1, "killed without a word, most likely for lack of memory"),
        ("INFO loading\n", 137, "killed without a word, most likely for lack of memory"),
        ("\x1b[36mINFO\x1b[0m bye\n\n", 1, "INFO bye"),
        ("", 1, "it wrote nothing"),
    ],
)
def test_the_reason_is_the_first_error_that_follows_from_no_other(log, status, expected):
    assert expected in reason(log, status) and "\n" not in reason(log, status)


def test_a_long_reason_is_cut_and_loses_its_link():
    said = reason("ValueError: Too long. See https://docs.vllm.ai/en/latest/x/ for more details.\n")
    assert said == "Too long."
    assert len(reason("KeyError: " + "word " * 500)) <= 400


def test_a_server_does_not_inherit_the_silence_of_an_offline_engine():
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "CRITICAL", "HOME": "/root"}
    assert settings.outside(env) == {"HOME": "/root"}
    assert settings.outside({"VLLM_LOGGING_LEVEL": "DEBUG"}) == {"VLLM_LOGGING_LEVEL": "DEBUG"}


def test_arguments_are_spelled_as_the_command_line_wants_them():
    given = {"max_num_seqs": 4, "enable_lora": True, "enable_prefix_caching": False, "seed": None}
    given |= {"lora_modules": ["a=/x", {"name": "b", "path": "/y"}], "speculative_config": {"method": "ngram"}}
    assert _flags(given) == [
        *("--max-num-seqs", "4", "--enable-lora", "--no-enable-prefix-caching"),
        *("--lora-modules", "a=/x", '{"name": "b", "path": "/y"}', "--speculative-config", '{"method": "ngram"}'),
    ]


def test_a_home_folder_reaches_the_engine_as_a_path(monkeypatch, tmp_path):
    class Started(Exception):
        """What the engine would have been started with."""

    def start(command, *_):
        raise Started(command)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("llminfra.engine.server.Child", start)
    monkeypatch.setattr("llminfra.engine.server.refuse_early", lambda *_: None)
    with pytest.raises(Started) as started, engine.serve("~/model"):
        pass
    command = started.value.args[0]
    assert command[command.index("--model") + 1] == str(tmp_path / "model")


BUFFERED = """
import importlib
offline = importlib.import_module("llminfra.engine.offline")
with offline._silence() as written:
    print("hidden")
print("shown")
"""


def test_what_is_printed_in_silence_stays_hidden_where_python_buffers():
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", BUFFERED], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "shown\n"


def test_an_offline_engine_leaves_the_environment_as_it_was(monkeypatch):
    offline = importlib.import_module("llminfra.engine.offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    before = dict(os.environ)
    with offline._environment():
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert dict(os.environ) == before


@pytest.mark.parametrize("profile", ["cpu", "t4", "a100"])
def test_an_offline_engine_decides_each_step_after_the_one_before(monkeypatch, profile):
    """On a GPU vLLM would schedule ahead, and what labs note of a step would not be what it computed."""
    monkeypatch.setenv("LLMINFRA_PROFILE", profile)
    assert settings.offline_arguments({}, {})["async_scheduling"] is False
