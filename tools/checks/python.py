"""Python that a page shows and does not run: its names, imports, attributes and calls against the pinned packages.

The work is done by basedpyright, which reads the installed packages. A `%%gpu` cell is read behind all cells of its
chapter that come before it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from checks import Problem
from checks.source import ROOT
from llminfra.notebook.chapter import as_python

# What makes a line false; the rest of a type checker's opinions is none of a page's business.
RULES = (
    "reportMissingImports",
    "reportAttributeAccessIssue",
    "reportUndefinedVariable",
    "reportCallIssue",
    "reportIndexIssue",
)


@dataclass(frozen=True)
class Snippet:
    """Python to read: where it stands, its first line there, the code, and code before it that is not judged."""

    path: str
    line: int
    code: str
    before: str = ""


def problems(snippets: list[Snippet], root: Path = ROOT) -> list[Problem]:
    """Return what Python's compiler says of the snippets, and basedpyright of those that compile, all in one run."""
    refused = {snippet: problem for snippet in snippets if (problem := _refused(snippet))}
    found = list(refused.values())
    snippets = [snippet for snippet in snippets if snippet not in refused]
    if not snippets:
        return sorted(found)
    with tempfile.TemporaryDirectory() as folder:
        for number, snippet in enumerate(snippets):
            code = as_python(snippet.before) + as_python(snippet.code)
            (Path(folder) / f"block_{number}.py").write_text(code, encoding="utf-8")
        settings = {
            "include": ["."],
            "extraPaths": [str(root / "src")],
            "typeCheckingMode": "off",
            **dict.fromkeys(RULES, "error"),
        }
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"basedpyright did not run: {(done.stderr or done.stdout)[-500:]}")
        for said in json.loads(done.stdout)["generalDiagnostics"]:
            snippet = snippets[int(re.findall(r"block_(\d+)\.py", said["file"])[-1])]
            line = said["range"]["start"]["line"] - snippet.before.count("\n")
            if said["severity"] == "error" and line >= 0:
                reason = " ".join(said["message"].split())
                found.append(Problem(snippet.path, snippet.line + line, f"Python: {reason}"))
    return sorted(found)


def _refused(snippet: Snippet) -> Problem | None:
    """Return why a snippet is no Python."""
    try:
        compile(as_python(snippet.code), snippet.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    except SyntaxError as error:
        return Problem(snippet.path, snippet.line + (error.lineno or 1) - 1, f"no Python: {error.msg}")
    return None
