"""What a page names in inline code: flags, metrics, commands and targets that exist.

A flag alone (`--max-num-seqs 16`) is one of the engine's, of our own command, or of `FLAGS`, which says whose; the engine also
judges the value. What has `vllm:` in it is a metric, a pattern of some, or PromQL. A span that begins with a program is a command
line as far as it goes: `vllm bench serve` names a command and leaves out the rest.

A passage that names something else on purpose says why in the line above it: `% unchecked: reason`.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from checks import Problem, containers, engine_cli, kubetools, promql, shell, source
from checks.source import ROOT, Page

# Flags of other programs that pages name alone, and whose they are.
FLAGS = {
    "--no-deps": "pip's: install nothing beside the packages named",
}
# A value that stands for the reader's own: N, <path>, …, path/to/it.
PLACEHOLDER = re.compile(r"[A-Z_]+|<.*>|….*|\.\.\.")


def problems(pages: list[Page], root: Path = ROOT) -> list[Problem]:
    """Return each span of inline code that names what does not exist, and each excuse that no span needs."""
    found = []
    for page in pages:
        for passage in page.passages:
            excuse = passage.excuses.get("unchecked", "")
            wrong = [
                Problem(page.path, line, f"`{span}`: {reason}")
                for line, span in source.spans(passage)
                for reason in reasons(span, root)
            ]
            if excuse and not wrong and passage.kind != "title":
                found.append(Problem(page.path, passage.line, f"no inline code here needs its excuse, “{excuse}”"))
            found += [] if excuse else wrong
    return sorted(found)


def of_course(root: Path = ROOT) -> tuple[list[Problem], int]:
    """Return `problems` of every page of the course, and how many spans name a flag, a metric, a command or a target."""
    pages = [source.read(path, root) for path in source.sources(root)]
    spans = [span for page in pages for passage in page.passages for _, span in source.spans(passage)]
    return problems(pages, root), sum(_reader(span) is not None for span in spans)


def reasons(span: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong with the text of one span."""
    reader = _reader(span)
    return reader(span, root) if reader else []


def _reader(span: str) -> Callable[[str, Path], list[str]] | None:
    """Return what reads a span; nothing if it names neither flag, metric nor command."""
    words = span.split()
    if re.match(r"--[a-z]", span):
        return _flags
    if re.search(r"(?<![\w.:/-])vllm:[\w*{]", span):
        return _metrics
    program = words[0].rpartition("/")[2] if len(words) > 1 else ""
    return PROGRAMS.get(program)


def _flags(span: str, root: Path) -> list[str]:
    words = _words(span)
    option = words[0].partition("=")[0].partition(".")[0]
    if option in engine_cli.serve_options():
        return (
            _refused(words) if not any(PLACEHOLDER.fullmatch(word.partition("=")[2] or word) for word in words) else []
        )
    if option in engine_cli.bench_options() | _our_options() | FLAGS.keys():
        return []
    return [
        f"no program of the course has the flag {option} (others: FLAGS in tools/checks/spans.py, each with its reason)"
    ]


def _refused(words: list[str]) -> list[str]:
    """Return why the engine refuses the value of a flag, if the span gives one."""
    if len(words) == 1 and "=" not in words[0]:
        return []
    try:
        engine_cli.check_serve_args(["model", *words])
    except engine_cli.BadArgs as error:
        return [f"the installed vLLM refuses it: {error}"]
    return []


def _metrics(span: str, root: Path) -> list[str]:
    names = promql.series().keys() | promql.families().keys()
    if re.fullmatch(r"[\w:*]+", span):
        known = fnmatch.filter(names, span)
        return [] if known else [f"no metric of the engine is called so: {_near(span, names)}"]
    return promql.problems(span)


def _near(name: str, names: set[str]) -> str:
    return ", ".join(difflib.get_close_matches(name, names, 3)) or "tests/data/vllm_metrics.json has them all"


def _make(span: str, root: Path) -> list[str]:
    text = (root / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"\b([A-Z_]+)=", span)
    return [reason for _, reason in shell.problems(span + "\n", root)] + [
        f"the Makefile has no variable {name}" for name in named if not re.search(rf"\b{name}\b", text)
    ]


def _llminfra(span: str, root: Path) -> list[str]:
    from llminfra import cli

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            cli.parser().parse_args(_words(span)[1:])
    except SystemExit as stop:
        message = said.getvalue().strip().rpartition("error: ")[2]
        if stop.code and "are required" not in message:
            return [message]
    flags = [word.partition("=")[0] for word in _words(span) if word.startswith("--")]
    return [f"llminfra has no flag {flag}" for flag in flags if flag not in _our_options()]


def _vllm(span: str, root: Path) -> list[str]:
    words = _words(span)
    if words[1] not in engine_cli.COMMANDS:
        return [f"vllm has no command {words[1]}"]
    options = {"serve": engine_cli.serve_options, "bench": engine_cli.bench_options}.get(words[1], set)()
    named = [word.partition("=")[0].partition(".")[0] for word in words if word.startswith("--")]
    found = [f"vllm {words[1]} has no flag {name}" for name in named if options and name not in options]
    if words[1] == "bench" and len(words) > 2 and words[2] not in engine_cli.benchmarks():
        found.append(f"vllm bench has no {words[2]}")
    return found


def _docker(span: str, root: Path) -> list[str]:
    try:
        containers.docker_starts(_words(span))
    except containers.BadDocker as error:
        return [] if "without an image" in str(error) else [str(error)]
    return []


def _curl(span: str, root: Path) -> list[str]:
    return [reason for _, reason in shell.problems(span + "\n", root)]


def _kube(span: str, root: Path) -> list[str]:
    program, *words = _words(span)
    bare = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    if words == bare and len(words) < 3 and kubetools.has_command(program.rpartition("/")[2], words):
        return []
    return kubetools.problems(program.rpartition("/")[2], words)


@functools.cache
def _our_options() -> set[str]:
    from llminfra import cli

    return engine_cli.options_of(cli.parser())


def _words(span: str) -> list[str]:
    try:
        return shlex.split(span)
    except ValueError:
        return span.split()


PROGRAMS: dict[str, Callable[[str, Path], list[str]]] = {
    "make": _make,
    "llminfra": _llminfra,
    "vllm": _vllm,
    "docker": _docker,
    "curl": _curl,
    **dict.fromkeys(kubetools.PROGRAMS, _kube),
}
