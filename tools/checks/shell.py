"""Shell text: parsed by bash, and each command in it by the program it calls, as far as that can be asked."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tree_sitter
import tree_sitter_bash

from checks import Faults, containers, curl, engine_cli, kubetools
from checks.source import ROOT

# Programs that cannot be asked here: no service manager, no second host, no cloud. What is checked of their lines is the
# shell's grammar and that every file of this repository they name is there.
PARSED_ONLY = {
    *("systemctl", "journalctl", "ssh", "aws", "gcloud", "nvidia-smi", "openssl"),
    *("cd", "export", "echo", "cat", "cp", "mv", "mkdir", "rm", "ls", "set", "sleep", "kill", "git"),
    *("grep", "tail", "head", "tee", "jq", "sort", "wc", "source", "test", "apt-get", "uv", "nvcc"),
}
# Programs that start another one, which is judged in their place if it is one of these or the engine's.
PREFIXES = {"sudo", "time", "exec", "watch", "nohup", "env", "timeout"}
PREFIX_VALUED = {"-u", "-g", "-n", "-k", "-s", "-C", "-D"}
JUDGED = {"docker", "kubectl", "helm", "curl", "make", "llminfra"}


@dataclass(frozen=True)
class Command:
    """A simple command: its words, the line from 1 that each begins on, and the here-document that it reads, with its line."""

    words: list[str]
    lines: list[int]
    document: str = ""
    document_line: int = 0


@functools.cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def problems(text: str, root: Path = ROOT) -> Faults:
    """Return what is wrong with a script: (line from 1, reason)."""
    script = _without_prompts(text)
    refused = grammar(script)
    if refused:
        named = re.search(r"line (\d+)", refused[0])
        return [(int(named.group(1)) if named else 1, refused[0])]
    return [fault for command in commands(script) for fault in _command(command, root)]


def grammar(script: str) -> list[str]:
    """Return why bash cannot parse a script."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    return [f"bash cannot parse it: {line}" for line in done.stderr.strip().splitlines()[:1]]


def _without_prompts(text: str) -> str:
    """Return the script of a console transcript: the lines after `$ `; what was printed becomes empty lines."""
    lines = text.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return text
    return "\n".join(line[2:] if line.startswith("$ ") else "" for line in lines) + "\n"


def commands(script: str) -> Iterator[Command]:
    """Yield every simple command, also inside pipes, loops and substitutions."""
    waiting: list[tuple[tree_sitter.Node, tree_sitter.Node | None]] = [
        (_parser().parse(script.encode()).root_node, None)
    ]
    while waiting:
        node, document = waiting.pop()
        if node.type == "redirected_statement":
            redirects = [child for child in node.children if child.type == "heredoc_redirect"]
            bodies = [part for redirect in redirects for part in redirect.children if part.type == "heredoc_body"]
            document = bodies[0] if bodies else document
        waiting += reversed([(child, document) for child in node.children])
        if node.type == "command":
            words = [child for child in node.children if child.type not in ("variable_assignment", "file_redirect")]
            lines = [word.start_point[0] + 1 for word in words]
            text, line = (_text(document), document.start_point[0] + 1) if document else ("", 0)
            yield Command([_word(word) for word in words], lines, text, line)


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def _word(node: tree_sitter.Node) -> str:
    """Return a word as the program gets it, but for what the shell puts in the place of variables."""
    text = _text(node).replace("\\\n", "")
    try:
        (word,) = shlex.split(text)
    except ValueError:  # an unquoted or a nested expansion, or none
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    return word


def command_problems(words: list[str], root: Path = ROOT) -> list[str]:
    """Return what is wrong with a command line given as words, as a manifest or an image has it."""
    if [Path(str(word)).name for word in words[:1]] in (["sh"], ["bash"]) and words[1:2] in (["-c"], ["-lc"], ["-ec"]):
        return [reason for _, reason in problems(words[2] + "\n", root)]
    return _engine(words) if engine_cli.starts_engine(words) else []


def _engine(words: list[str]) -> list[str]:
    try:
        engine_cli.check_command(words)
    except engine_cli.BadArgs as error:
        return [f"the installed vLLM refuses `{' '.join(map(str, words))[:60]}…`: {error}"]
    return []


def _command(command: Command, root: Path) -> Faults:
    """Return what the program of a command says of its arguments: (line from 1, reason)."""
    words = command.words
    program = words[0].rsplit("/", 1)[-1]
    if program in PREFIXES:
        started = _started(words)
        if _is_judged(words[started:]):
            return _command(replace(command, words=words[started:], lines=command.lines[started:]), root)
    if program == "curl":
        return curl.problems(words, command.lines, command.document, command.document_line)
    return [(command.lines[0], reason) for reason in _reasons(program, words, root)]


def _started(words: list[str]) -> int:
    """Return the place of the program that a prefix starts, behind options, their values, assignments and durations."""
    place = 1
    while place < len(words) and re.match(r"-|\w+=|[\d.]+[smhd]?$", words[place]):
        place += 2 if words[place] in PREFIX_VALUED else 1
    return place


def _is_judged(words: list[str]) -> bool:
    return bool(words) and (words[0].rsplit("/", 1)[-1] in JUDGED or engine_cli.starts_engine(words))


def _reasons(program: str, words: list[str], root: Path) -> list[str]:
    if engine_cli.starts_engine(words):
        return _engine(words)
    if program == "make":
        targets = make_targets(root)
        asked = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return [f"`make {name}`: the Makefile has no target {name}" for name in asked if name not in targets]
    if program == "llminfra":
        return llminfra_problems(words[1:])
    if program == "docker":
        return _docker(words) + _missing_files(words, root)
    if program in kubetools.PROGRAMS:
        return kubetools.problems(program, words[1:]) + _missing_files(words, root)
    if program.startswith(("python", "pip")) or program in PARSED_ONLY | PREFIXES:
        return _missing_files(words, root)
    return [f"no check knows the program `{program}`: add it to tools/checks/shell.py, with how it is checked"]


def _docker(words: list[str]) -> list[str]:
    try:
        return command_problems(containers.docker_starts(words))
    except containers.BadDocker as error:
        return [str(error)]


def make_targets(root: Path = ROOT) -> set[str]:
    """Return the targets of the Makefile."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^([\w./ -]+):(?!=)", text, re.M) for name in line.split()}


def llminfra_problems(words: list[str]) -> list[str]:
    """Return why our own command does not take these arguments."""
    from llminfra import cli

    parser = cli.parser()
    try:
        parser.parse_args(words)
    except SystemExit as stop:
        if stop.code:
            return [f"`llminfra {' '.join(words)}`: the command does not take these arguments"]
    return []


def _missing_files(words: list[str], root: Path) -> list[str]:
    """Return the files of this repository that a command names and that are not there."""
    folders = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    named = [word for word in words[1:] if re.match(r"(?:\./)?[\w-]+/[\w./-]+$", word)]
    named += [word for word in words[1:] if re.match(r"requirements[\w-]*\.txt$", word)]
    return [
        f"`{words[0]} … {name}`: there is no such file"
        for name in named
        if (name.removeprefix("./").split("/")[0] in folders or "/" not in name) and not (root / name).exists()
    ]
