"""Shell text: parsed by bash, and each command in it by the program it calls, as far as that can be asked."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import tree_sitter
import tree_sitter_bash

from checks import engine_cli
from checks.source import ROOT

# Programs that cannot be asked here: no cluster, no container engine, no service manager, no second host. What is
# checked of their lines is the shell's grammar and that every file of this repository they name is there.
PARSED_ONLY = {
    *("kubectl", "helm", "docker", "curl", "systemctl", "journalctl", "ssh", "aws", "gcloud", "nvidia-smi"),
    *("cd", "export", "echo", "cat", "sudo", "cp", "mv", "mkdir", "rm", "ls", "set", "sleep", "kill", "watch", "git"),
    *("grep", "tail", "head", "tee", "jq", "sort", "wc", "time", "source", "test", "apt-get", "uv", "nvcc", "exec"),
}


@functools.cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def problems(text: str, root: Path = ROOT) -> list[tuple[int, str]]:
    """Return what is wrong with a script: (line from 1, reason)."""
    script = _without_prompts(text)
    refused = grammar(script)
    if refused:
        named = re.search(r"line (\d+)", refused[0])
        return [(int(named.group(1)) if named else 1, refused[0])]
    found = []
    for line, command in commands(script):
        found += [(line, reason) for reason in _command(command, root)]
    return found


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


def commands(script: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line from 1, words) of every simple command, also inside pipes, loops and substitutions."""
    waiting = [_parser().parse(script.encode()).root_node]
    while waiting:
        node = waiting.pop()
        waiting += reversed(node.children)
        if node.type == "command":
            words = [child for child in node.children if child.type not in ("variable_assignment", "file_redirect")]
            yield node.start_point[0] + 1, [_word(word) for word in words]


def _word(node: tree_sitter.Node) -> str:
    text = (node.text or b"").decode().replace("\\\n", "")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def command_problems(words: list[str], root: Path = ROOT) -> list[str]:
    """Return what is wrong with a command line given as words, as a manifest or an image has it."""
    if [Path(str(word)).name for word in words[:1]] in (["sh"], ["bash"]) and words[1:2] in (["-c"], ["-lc"], ["-ec"]):
        return [reason for _, reason in problems(words[2] + "\n", root)]
    if engine_cli.starts_engine(words):
        return _command(words, root)
    return []


def _command(words: list[str], root: Path) -> list[str]:
    """Return what the program of a command says of its arguments."""
    program = words[0].rsplit("/", 1)[-1]
    if engine_cli.starts_engine(words):
        try:
            engine_cli.check_command(words)
        except engine_cli.BadArgs as error:
            return [f"the installed vLLM refuses `{' '.join(words)[:60]}…`: {error}"]
        return []
    if program == "make":
        targets = make_targets(root)
        asked = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return [f"`make {name}`: the Makefile has no target {name}" for name in asked if name not in targets]
    if program == "llminfra":
        return _llminfra(words[1:])
    if program.startswith(("python", "pip")) or program in PARSED_ONLY:
        return _missing_files(words, root)
    return [f"no check knows the program `{program}`: add it to tools/checks/shell.py, with how it is checked"]


def make_targets(root: Path = ROOT) -> set[str]:
    """Return the targets of the Makefile."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^([\w./ -]+):(?!=)", text, re.M) for name in line.split()}


def _llminfra(words: list[str]) -> list[str]:
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
