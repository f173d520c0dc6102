"""What exercise 1's stand-in engine says, against what the installed vLLM would."""

import importlib.util
import json
import os
import shutil
import sys

import pytest
from checks import engine_api, formats
from checks.engine_cli import BadArgs, _serve_parser, check_serve_args
from checks.source import ROOT

EXERCISE = ROOT / "exercises" / "01-deploy-vllm"
# A process of its own, since it imports vLLM.
pytestmark = pytest.mark.heavy


def loaded(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stand_in():
    return loaded(EXERCISE / "grader" / "ex1_engine.py", "ex1_engine")


def test_its_options_are_those_of_the_parser(stand_in):
    found = {}
    for action in _serve_parser()._actions:
        kind = {0: "none", "+": "list", "*": "list"}.get(action.nargs) or getattr(action.type, "__name__", "str")
        for option in action.option_strings:
            if option.startswith("--"):
                found[option.replace("_", "-")] = kind if kind in ("none", "list", "int", "float") else "str"
    assert found == stand_in.OPTIONS


@pytest.mark.parametrize("device", ["cpu", "t4", "a10g"])
@pytest.mark.parametrize("folder", ["solution", "alternative"])
def test_both_read_the_launchers_command_lines(stand_in, device, folder):
    config = json.loads((EXERCISE / folder / "config.json").read_text()) | {"device": device}
    words = loaded(EXERCISE / folder / "launcher.py", "launcher").command(config)
    options, wrong = stand_in.parsed(words[2:])
    parsed = check_serve_args(words[2:])
    assert not wrong
    assert options["model"] == parsed.model_tag == config["model"]
    assert options["--port"] == parsed.port and options["--shutdown-timeout"] == parsed.shutdown_timeout
    assert options["--max-num-seqs"] == parsed.max_num_seqs and options["--dtype"] == parsed.dtype
    assert options["--served-model-name"] == parsed.served_model_name
    assert options.get("--enforce-eager", False) == parsed.enforce_eager == (device == "cpu")
    assert int(options.get("--kv-cache-memory-bytes", 0)) == (parsed.kv_cache_memory_bytes or 0)
    if device != "cpu":
        assert options["--gpu-memory-utilization"] == parsed.gpu_memory_utilization


@pytest.mark.parametrize(
    "words",
    [["m", "--max-model-length", "5"], ["m", "--port", "http"], ["m", "--port"], ["m", "n"], ["--port", "80"]],
    ids=" ".join,
)
def test_both_refuse_the_same(stand_in, words):
    assert stand_in.parsed(words)[1]
    with pytest.raises(BadArgs):
        check_serve_args(words)


def test_its_bodies_are_the_engines(stand_in):
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse, ChatCompletionStreamResponse
    from vllm.entrypoints.openai.completion.protocol import CompletionResponse
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
    from vllm.exceptions import QueueOverflowError, VLLMValidationError

    usage = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
    events = [{"role": "assistant", "content": ""}, {"content": "x"}, None]
    made = [
        *((ChatCompletionStreamResponse, stand_in.chunk("m", delta, None, usage)) for delta in events),
        (ChatCompletionResponse, stand_in.chat("m", "x")),
        (CompletionResponse, stand_in.completion("m", "x")),
        (ErrorResponse, stand_in.error_body(503, "x")),
    ]
    for model, body in made:
        read = model.model_validate(body).model_dump()
        assert {name: read[name] for name in body if name not in ("choices", "usage", "error")} == {
            name: body[name] for name in body if name not in ("choices", "usage", "error")
        }
        assert body.keys() <= model.model_fields.keys(), "a key that the engine does not send"
    assert create_error_response(QueueOverflowError()).model_dump() == stand_in.error_body(503, stand_in.BUSY)
    refused = create_error_response(VLLMValidationError("x")).model_dump()
    assert refused == stand_in.error_body(400, "x")
    text = "café\u2028日本"
    sent = ChatCompletionStreamResponse.model_validate(stand_in.chunk("m", {"content": text})).model_dump_json()
    assert text in sent and text.encode() in stand_in.encoded(stand_in.chunk("m", {"content": text}))


def test_its_routes_are_the_engines():
    routes = engine_api.routes()
    question = json.dumps({"model": "m", "prompt": "Hi", "max_tokens": 1})
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}
    chat["stream_options"] = {"include_usage": True}
    for method, path, body in (
        ("GET", "/health", None),
        ("GET", "/v1/models", None),
        ("POST", "/v1/completions", question),
        ("POST", "/v1/chat/completions", json.dumps(chat)),
    ):
        assert engine_api.problems(routes, method, path, body, "vLLM") == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("folder", ["solution", "alternative"])
def test_systemd_takes_the_units(folder):
    assert formats.systemd_says((EXERCISE / folder / "vllm.service").read_text(encoding="utf-8")) == ""


def test_the_key_is_read_from_the_environment():
    import vllm.envs

    os.environ["VLLM_API_KEY"] = "k"
    try:
        assert vllm.envs.VLLM_API_KEY == "k"
    finally:
        del os.environ["VLLM_API_KEY"]
