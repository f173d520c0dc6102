"""What the installed vLLM says of a `vllm serve` or `vllm bench` command line, asked without starting an engine.

The parsers are the engine's own, built once per process: importing vLLM takes
several seconds. It is imported inside the functions, so that collecting tests costs nothing.
"""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any, NoReturn


class BadArgs(ValueError):
    """A command line that vLLM would refuse, or take for another; the message is the engine's if it has one."""


def _raising(program: str) -> Any:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Raising(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise BadArgs(message)

    return Raising(prog=program)


@functools.cache
def _serve_parser() -> argparse.ArgumentParser:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser

    return make_arg_parser(_raising("vllm serve"))


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


def _known(args: list[str], parser: argparse.ArgumentParser) -> None:
    """Raise BadArgs for an option that the parser would not know by its full name (argparse takes `--max-model-le`)."""
    for arg in args:
        if not isinstance(arg, str):
            raise BadArgs(f"{arg!r} is no text: quote it")
        option = arg.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option.partition(".")[0] not in parser._option_string_actions:
            raise BadArgs(f"unrecognized arguments: {arg}")


def check_serve_args(args: list[str]) -> argparse.Namespace:
    """Return the parsed arguments of `vllm serve`, given without these two words.

    Raises BadArgs for an unknown or abbreviated option, a value of the wrong type or outside its bounds, combinations
    that the server refuses, no model or one given twice, and arguments that are not text, as an unquoted number in YAML
    is.
    """
    parser = _serve_parser()
    _known(args, parser)
    if any(arg.partition("=")[0] == "--model" for arg in args):
        raise BadArgs("the model is the first argument of `vllm serve`, not --model")
    parsed = parser.parse_args(args)
    if parsed.model_tag is None and parsed.config is None:
        raise BadArgs("no model: without one, `vllm serve` downloads its default")

    from pydantic import ValidationError
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    try:
        validate_parsed_serve_args(parsed)
        for config, values in _configs(parsed):
            config(**values)
    except (TypeError, ValueError, ValidationError) as error:
        raise BadArgs(str(error)) from error
    return parsed


@functools.cache
def _bench_parsers() -> dict[str, argparse.ArgumentParser]:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.entrypoints.cli.benchmark.base import BenchmarkSubcommandBase
    from vllm.entrypoints.cli.benchmark.main import _import_bench_subcommand_modules

    _import_bench_subcommand_modules()
    parsers = {}
    for command in BenchmarkSubcommandBase.__subclasses__():
        parsers[command.name] = _raising(f"vllm bench {command.name}")
        command.add_cli_args(parsers[command.name])
    return parsers


def check_bench_args(args: list[str]) -> argparse.Namespace:
    """Return the parsed arguments of `vllm bench`, given without these two words. Raises BadArgs."""
    parsers = _bench_parsers()
    if not args or args[0] not in parsers:
        raise BadArgs(f"no benchmark {args[:1]}; vllm bench has {', '.join(sorted(parsers))}")
    _known(args[1:], parsers[args[0]])
    return parsers[args[0]].parse_args(args[1:])


# What follows `vllm`; of these, `serve` and `bench` have their options judged.
COMMANDS = {
    *("serve", "bench", "chat", "complete", "run-batch", "collect-env", "launch", "download-kernels", "preload"),
    "snapshot",
}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser and of its subcommands."""
    found = {option for option in parser._option_string_actions if option.startswith("--")}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for command in action.choices.values() for option in options_of(command)}
    return found


@functools.cache
def serve_options() -> set[str]:
    """Return the long options of `vllm serve`."""
    return options_of(_serve_parser())


def benchmarks() -> set[str]:
    """Return the names of what `vllm bench` runs."""
    return set(_bench_parsers())


@functools.cache
def bench_options() -> set[str]:
    """Return the long options of every `vllm bench`."""
    return {option for parser in _bench_parsers().values() for option in options_of(parser)}


API_SERVER = "vllm.entrypoints.openai.api_server"


def starts_engine(command: list[str]) -> bool:
    """Return whether a command line is vLLM's: the `vllm` command, or the API server's module."""
    program = str(command[0]).rsplit("/", 1)[-1] if command else ""
    return program == "vllm" or (program.startswith("python") and command[1:3] == ["-m", API_SERVER])


def serve_args(command: list[str]) -> list[str]:
    """Return the arguments of a whole command line: `vllm serve …` or `python -m vllm.entrypoints.openai.api_server …`.

    Of the second form `--model X` becomes the first argument. Raises BadArgs if it is neither.
    """
    if starts_engine(command) and command[1:2] == ["serve"]:
        return command[2:]
    if starts_engine(command) and command[1:2] == ["-m"]:
        rest = command[3:]
        if "--model" in rest:
            at = rest.index("--model")
            rest = [*rest[at + 1 : at + 2], *rest[:at], *rest[at + 2 :]]
        return rest
    raise BadArgs(f"neither `vllm serve` nor the API server's module: {' '.join(command[:3])}")


def check_command(command: list[str]) -> None:
    """Raise BadArgs if a command line that `starts_engine` is one that the installed vLLM would refuse."""
    if command[1:2] == ["bench"]:
        check_bench_args(command[2:])
    else:
        check_serve_args(serve_args(command))
