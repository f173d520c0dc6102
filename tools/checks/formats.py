"""Files and blocks in a format that some program consumes, read by that program, or by its schema or parser.

Each function takes the text and returns what is wrong with it: (line from 1, or 0 where unknown; reason).
"""

from __future__ import annotations

import importlib
import io
import json
import re
import shlex
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from checks import promql, shell
from checks.source import ROOT

KUBERNETES = "1.37"
# Where the schemas of custom resources ship: the group of an apiVersion, and the package of models of its versions.
CUSTOM = {
    "monitoring.coreos.com": "cloudcoil.models.prometheus_operator",
    "keda.sh": "cloudcoil.models.keda",
}
Faults = list[tuple[int, str]]


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
            found += _kubernetes(document, text)
        elif set(document) == {"groups"}:
            found += rules(document, text)
        elif "scrape_configs" in document:
            found += _promtool("config", text)
        for words in _command_lines(document):
            found += [(_line(text, _blamed(words, reason)), reason) for reason in shell.command_problems(words)]
    return found


def _line(text: str, name: str) -> int:
    """Return the first line that holds a name, or 0."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if name and name in line), 0)


def _blamed(words: list[str], reason: str) -> str:
    """Return the word of a command line that the engine's own message names, or the first."""
    said = reason.partition("…`: ")[2]
    return next((str(word) for word in words[1:] if str(word).partition("=")[0].strip("-") in said), str(words[0]))


def _kubernetes(document: dict[str, Any], text: str) -> Faults:
    group = document["apiVersion"].rpartition("/")[0]
    if group in CUSTOM:
        found = _custom(document, text)
        if document["kind"] == "PrometheusRule":
            found += rules(document["spec"], text)
        return found
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        at = ".".join(str(part) for part in error.path)
        name = re.search(r"'([^']+)' was unexpected", error.message)
        line = _line(text, name.group(1) + ":") if name else _line(text, str(error.path[-1])) if error.path else 0
        return [(line, f"Kubernetes {KUBERNETES} refuses {document['kind']}: {at}: {error.message}")]
    except kubernetes_validate.SchemaNotFoundError:
        return [
            (
                _line(text, document["kind"]),
                f"no schema of {document['apiVersion']} {document['kind']}: add its package to CUSTOM in tools/checks/formats.py, or say why it is unchecked",
            )
        ]
    return []


def _custom(document: dict[str, Any], text: str) -> Faults:
    from pydantic import ValidationError

    group, _, version = document["apiVersion"].rpartition("/")
    name = f"{document['apiVersion']} {document['kind']}"
    try:
        model = getattr(importlib.import_module(f"{CUSTOM[group]}.{version}"), document["kind"])
    except (ImportError, AttributeError):
        return [(_line(text, document["kind"]), f"{CUSTOM[group]} has no {name}")]
    try:
        kept = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return [(_line(text, str(first["loc"][-1])), f"{name}: {where}: {first['msg']}")]
    return [(_line(text, f"{key}:"), f"{name} has no field {path}") for path, key in _dropped(document, kept)]


def _dropped(given: Any, kept: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, key) of each field that a schema did not keep: pydantic ignores what it does not know."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            path = f"{at}.{key}".strip(".")
            if key not in kept:
                yield path, key
            else:
                yield from _dropped(value, kept[key], path)
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (mine, other) in enumerate(zip(given, kept, strict=False)):
            yield from _dropped(mine, other, f"{at}[{number}]")


def _command_lines(part: Any) -> Iterator[list[str]]:
    """Yield the command lines of containers, wherever they stand in a document."""
    if isinstance(part, dict):
        command, args = part.get("command"), part.get("args")
        words = [*(command if isinstance(command, list) else []), *(args if isinstance(args, list) else [])]
        if words:
            yield words
        elif isinstance(command, str):
            yield shlex.split(command)
        for value in part.values():
            yield from _command_lines(value)
    elif isinstance(part, list):
        for value in part:
            yield from _command_lines(value)


def rules(document: dict[str, Any], text: str) -> Faults:
    """Hand Prometheus rules to promtool, and their expressions to `promql`."""
    found = _promtool("rules", yaml.safe_dump(document))
    for group in document.get("groups", []) if not found else []:
        for rule in group.get("rules", []):
            known = {other["record"] for other in group["rules"] if "record" in other}
            found += [
                (_line(text, rule["expr"].splitlines()[0]), reason) for reason in promql.problems(rule["expr"], known)
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
    found: Faults = [(_line(text, _key(line)), f"systemd: {line}") for line in said.splitlines()]
    for key, value in sections.get("Service", []):
        if key == "ExecStart":
            found += [
                (_line(text, key), reason) for reason in shell.command_problems(shlex.split(value.lstrip("-@:+!")))
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
