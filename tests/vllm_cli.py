"""What the installed vLLM says of a `vllm serve` command line, asked without starting an engine.

The parser is the engine's own (`vllm.entrypoints.launchers.cli_args`), built once per process: importing vLLM takes
several seconds. It is imported inside the functions, so that collecting tests costs nothing.
"""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any, NoReturn


class BadServeArgs(ValueError):
    """A command line that `vllm serve` would refuse, or take for another; the message is the engine's if it has one."""


@functools.cache
def _parser() -> argparse.ArgumentParser:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Raising(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise BadServeArgs(message)

    return make_arg_parser(Raising(prog="vllm serve"))


def _configs(parsed: argparse.Namespace) -> list[tuple[type, dict[str, Any]]]:
    """Return the engine's configuration classes that bound a value, with the values given for their fields.

    What depends on the platform or the model is left at its default here: those defaults need the machine.
    """
    from vllm.config import CacheConfig, SchedulerConfig

    fields = {
        CacheConfig: {"gpu_memory_utilization": "gpu_memory_utilization", "block_size": "block_size"},
        SchedulerConfig: {
            name: name
            for name in (
                "max_num_seqs",
                "max_num_batched_tokens",
                "max_num_queued_reqs",
                "watermark",
                "stream_interval",
            )
        },
    }
    given = []
    for config, names in fields.items():
        values = {field: getattr(parsed, name) for field, name in names.items() if getattr(parsed, name) is not None}
        given.append((config, values))
    given[1][1].update(max_model_len=parsed.max_model_len or 8192, is_encoder_decoder=False)
    return given


def check_serve_args(args: list[str]) -> argparse.Namespace:
    """Return the parsed arguments of `vllm serve`, given without these two words.

    Raises BadServeArgs for an unknown or abbreviated option (argparse would take `--max-model-le` silently), a value of
    the wrong type or outside its bounds, combinations that the server refuses, no model or one given twice, and
    arguments that are not text, as an unquoted number in YAML is.
    """
    for arg in args:
        if not isinstance(arg, str):
            raise BadServeArgs(f"{arg!r} is no text: quote it")
    parser = _parser()
    known = parser._option_string_actions
    for arg in args:
        option = arg.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option.partition(".")[0] not in known:
            raise BadServeArgs(f"unrecognized arguments: {arg}")
        if option == "--model":
            raise BadServeArgs("the model is the first argument of `vllm serve`, not --model")
    parsed = parser.parse_args(args)
    if parsed.model_tag is None and parsed.config is None:
        raise BadServeArgs("no model: without one, `vllm serve` downloads its default")

    from pydantic import ValidationError
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    try:
        validate_parsed_serve_args(parsed)
        for config, values in _configs(parsed):
            config(**values)
    except (TypeError, ValueError, ValidationError) as error:
        raise BadServeArgs(str(error)) from error
    return parsed


def serve_args(command: list[str]) -> list[str]:
    """Return the arguments of a whole command line: `vllm serve …` or `python -m vllm.entrypoints.openai.api_server …`.

    Of the second form `--model X` becomes the first argument. Raises BadServeArgs if it is neither.
    """
    program = command[0].rsplit("/", 1)[-1] if command else ""
    if program == "vllm" and command[1:2] == ["serve"]:
        return command[2:]
    if program.startswith("python") and command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]:
        rest = command[3:]
        if "--model" in rest:
            at = rest.index("--model")
            rest = [*rest[at + 1 : at + 2], *rest[:at], *rest[at + 2 :]]
        return rest
    raise BadServeArgs(f"neither `vllm serve` nor the API server's module: {' '.join(command[:3])}")
