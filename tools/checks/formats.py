"""Files and blocks in a format that some program consumes, read by that program, or by its schema or parser.

Each function takes the text and returns what is wrong with it: (line from 1, or 0 where unknown; reason).
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from checks import Faults, containers, kubernetes, line_of, promql, shell
from checks.source import ROOT


def json_text(text: str) -> Faults:
    """Parse JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return [(error.lineno, f"no JSON: {error.msg}")]
    return []


def toml_text(text: str) -> Faults:
    """Parse TOML."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        return [(int(line.group(1)) if line else 0, f"no TOML: {error}")]
    return []


def yaml_text(text: str) -> Faults:
    """Parse YAML, and hand what it is to what would consume it: Kubernetes, Prometheus, or nothing more."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return [(mark.line + 1 if mark else 0, f"no YAML: {getattr(error, 'problem', None) or error}")]
    found: Faults = []
    for document in documents:
        if not isinstance(document, dict):
            continue
        if "apiVersion" in document and "kind" in document:
            found += kubernetes.problems(document, text)
            if document["kind"] == "PrometheusRule" and "spec" in document:
                found += rules(document["spec"], text)
        elif set(document) == {"groups"}:
            found += rules(document, text)
        elif "scrape_configs" in document:
            found += _promtool("config", text)
        for words, place in containers.command_lines(document):
            reasons = shell.command_problems(words)
            found += [(line_of(text, _blamed(words, reason, place)), reason) for reason in reasons]
    return found


def _blamed(words: list[str], reason: str, place: str) -> str:
    """Return the word of a command line that the engine's own message names, or the one that tells its place."""
    said = reason.partition("…`: ")[2]
    for word in map(str, words[1:]):
        option = word.partition("=")[0]
        spelt = "|".join(map(re.escape, {option, option.strip("-").replace("-", "_")}))
        if option.startswith("--") and re.search(rf"(?<![\w-])(?:{spelt})(?![\w-])", said):
            return word
    return place


def rules(document: dict[str, Any], text: str) -> Faults:
    """Hand Prometheus rules to promtool, and their expressions to `promql`."""
    found = _promtool("rules", yaml.safe_dump(document))
    for group in document.get("groups", []) if not found else []:
        for rule in group.get("rules", []):
            known = {other["record"] for other in group["rules"] if "record" in other}
            found += [
                (line_of(text, rule["expr"].splitlines()[0]), reason) for reason in promql.problems(rule["expr"], known)
            ]
    return found


def _promtool(kind: str, text: str) -> Faults:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{kind}.yml"
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(["promtool", "check", kind, str(file)], capture_output=True, text=True, check=False)
    if not done.returncode:
        return []
    said = (done.stderr or done.stdout).replace(f"{file}: ", "").strip().splitlines()
    return [(0, f"promtool refuses the {kind}: {' '.join(line.strip() for line in said if 'FAILED' not in line)}")]


def promql_text(text: str) -> Faults:
    """Parse PromQL, an expression a paragraph, and look its metrics up among those the engine exposes."""
    return [
        (text[: match.start()].count("\n") + 1, reason)
        for match in re.finditer(r"(?:^(?!\s*#).*\S.*\n?)+", text, re.M)
        for reason in promql.problems(match.group())
    ]


def unit_sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return a unit file's sections: each a list of (key, value), in order, with continued lines joined.

    Raises ValueError, with the line, for what systemd would ignore or refuse: an assignment outside a section, a line
    that is none, a section name that is not one of the three of a service.
    """
    sections: dict[str, list[tuple[str, str]]] = {}
    section = None
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = line.strip("[]")
            if section not in ("Unit", "Service", "Install"):
                raise ValueError(f"unknown section {line}")
            sections[section] = []
        elif section is None or "=" not in line:
            raise ValueError(f"no assignment in a section: {line}")
        else:
            key, _, value = line.partition("=")
            sections[section].append((key, " ".join(value.split())))
    return sections


def unit(text: str) -> Faults:
    """Hand a systemd service to `systemd-analyze verify`, and its command line to what it starts."""
    try:
        sections = unit_sections(text)
    except ValueError as error:
        return [(0, f"systemd: {error}")]
    said = systemd_says(text)
    found: Faults = [(line_of(text, _key(line)), f"systemd: {line}") for line in said.splitlines()]
    for key, value in sections.get("Service", []):
        if key == "ExecStart":
            found += [
                (line_of(text, key), reason) for reason in shell.command_problems(shlex.split(value.lstrip("-@:+!")))
            ]
    return found


def _key(line: str) -> str:
    named = re.search(r"'(\w+)'", line)
    return named.group(1) if named else ""


def systemd_says(text: str) -> str:
    """Return what systemd says of a unit whose programs are all /bin/true, since they are not installed here."""
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        lines.append(f"{key}=/bin/true {value.partition(' ')[2]}" if equals and key.startswith("Exec") else line)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checked.service"
        copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return (done.stdout + done.stderr).replace(f"{copy}", "checked.service")


DOCKERFILE = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN"),
    *("SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR", "COMMENT"),
}


def dockerfile(text: str) -> Faults:
    """Parse a Dockerfile; its RUN lines are shell, and its ENTRYPOINT with its CMD a command line."""
    from dockerfile_parse import DockerfileParser

    lines = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    found: Faults = [
        (line["startline"] + 1, f"a Dockerfile has no instruction {line['instruction']}")
        for line in lines
        if line["instruction"] not in DOCKERFILE
    ]
    if not any(line["instruction"] == "FROM" for line in lines):
        found.append((1, "a Dockerfile without FROM"))
    starts: dict[str, list[str]] = {}
    for line in lines:
        at, value = line["startline"] + 1, line["value"]
        if line["instruction"] == "RUN" and not value.startswith("["):
            script = re.sub(r"^(--\w+=\S+\s+)+", "", value)
            found += [(at, f"RUN: {reason}") for reason in shell.grammar(script + "\n")]
        elif line["instruction"] in ("ENTRYPOINT", "CMD"):
            faults = json_text(value) if value.startswith("[") else []
            found += [(at, f"{line['instruction']}: {reason}") for _, reason in faults]
            if not faults:
                starts[line["instruction"]] = json.loads(value) if value.startswith("[") else shlex.split(value)
    words = starts.get("ENTRYPOINT", []) + starts.get("CMD", [])
    return found + [(0, reason) for reason in shell.command_problems(words)]


def shell_text(text: str) -> Faults:
    """Parse shell, and ask each program of its arguments."""
    return shell.problems(text)


BY_LANGUAGE: dict[str, Callable[[str], Faults]] = {
    **dict.fromkeys(("bash", "sh", "shell", "console"), shell_text),
    **dict.fromkeys(("yaml", "yml"), yaml_text),
    **dict.fromkeys(("ini", "systemd"), unit),
    **dict.fromkeys(("docker", "dockerfile"), dockerfile),
    "json": json_text,
    "toml": toml_text,
    "promql": promql_text,
}


def of_file(path: Path) -> Callable[[str], Faults] | None:
    """Return the check of a file by its name, or None."""
    if path.name.startswith("Dockerfile") and path.suffix != ".dockerignore":
        return dockerfile
    suffixes = {".service": "ini", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".sh": "bash"}
    return BY_LANGUAGE.get(suffixes.get(path.suffix, ""))


def deployed(root: Path = ROOT) -> list[Path]:
    """Return the files under deploy/ that a check reads."""
    return [path for path in sorted((root / "deploy").rglob("*")) if path.is_file() and of_file(path)]
