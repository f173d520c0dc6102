"""The `%%gpu` cell: run on a GPU, replay what was recorded on one, or say so and predict.

    %%gpu name=02-vllm-deployment/throughput memory=18 needs=vllm predict=predicted

On a machine with a GPU of that much memory the cell runs. Elsewhere it shows every recording of
`notebooks/recordings/<name>.<gpu>.json`, or says that there is none, how to get one, and what the function or value
`predict` of the notebook says, labelled as a prediction. The code is parsed and its names are resolved everywhere.
"""

from __future__ import annotations

import ast
import builtins
import html
import importlib
import importlib.util
import json
import os
import shlex
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import GpuCellError
from ..models import gpus

RECORDINGS = Path(__file__).resolve().parents[3] / "notebooks" / "recordings"
OPTIONS = {"name", "memory", "needs", "predict"}


@dataclass(frozen=True)
class Options:
    """A `%%gpu` line: the recording's name, GiB of GPU memory, packages needed, and which notebook name predicts."""

    name: str
    memory_gib: float
    needs: tuple[str, ...]
    predict: str | None


def options(line: str) -> Options:
    """Parse a `%%gpu` line; raises GpuCellError that names what is wrong."""
    pairs = dict(part.partition("=")[::2] for part in shlex.split(line))
    unknown = set(pairs) - OPTIONS
    if unknown or not {"name", "memory"} <= set(pairs):
        raise GpuCellError(f"%%gpu takes name=, memory= (GiB), needs=, predict=; got {line!r}")
    try:
        memory_gib = float(pairs["memory"])
    except ValueError:
        raise GpuCellError(f"%%gpu memory={pairs['memory']}: it must be a number of GiB") from None
    return Options(
        pairs["name"],
        memory_gib,
        tuple(filter(None, pairs.get("needs", "").split(","))),
        pairs.get("predict"),
    )


def resolve(source: str, namespace: dict[str, Any]) -> None:
    """Raise GpuCellError if the cell does not parse, imports what is not installed, or uses an undefined name."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise GpuCellError(f"the GPU cell does not parse: {error}") from None
    bound = set(dir(builtins)) | set(namespace)
    used: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                _importable(alias.name)
                bound.add((alias.asname or alias.name).partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound |= _imported(node.module or "", alias.name, alias.asname)
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                used.setdefault(node.id, node.lineno)
            else:
                bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
    for name, line in used.items():
        if name not in bound:
            raise GpuCellError(f"line {line} of the GPU cell uses {name!r}, which nothing defines")


def _importable(module: str) -> None:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise GpuCellError(f"the GPU cell imports {module!r}, which is not installed")


def _imported(module: str, name: str, alias: str | None) -> set[str]:
    """Return the names that `from module import name as alias` binds. Raises GpuCellError if there is no such name."""
    _importable(module)
    loaded = importlib.import_module(module)
    if name == "*":
        return set(getattr(loaded, "__all__", [one for one in dir(loaded) if not one.startswith("_")]))
    if not hasattr(loaded, name) and importlib.util.find_spec(f"{module}.{name}") is None:
        raise GpuCellError(f"the GPU cell imports {name!r} from {module}, which has no such name")
    return {alias or name}


def gpu_cell(line: str, cell: str) -> None:
    """Run, replay or predict a cell: the `%%gpu` magic that `llminfra.lab` registers."""
    from IPython.core.getipython import get_ipython

    wanted = options(line)
    shell: Any = get_ipython()
    resolve(cell, shell.user_ns)
    here = gpus()
    lacking = [name for name in wanted.needs if importlib.util.find_spec(name) is None]
    if here and float(here[0]["memory_mib"]) / 1024 >= wanted.memory_gib and not lacking:
        _run(wanted, cell, shell, here[0])
    else:
        _show(wanted, shell.user_ns)


def _run(wanted: Options, cell: str, shell: Any, gpu: dict[str, str]) -> None:
    """Run the cell here; where LLMINFRA_RECORD is set (`llminfra record`), write what it printed as a recording."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(cell)
    captured.show()
    result.raise_error()
    if os.environ.get("LLMINFRA_RECORD"):
        write_recording(wanted.name, captured.stdout, gpu, wanted.needs)


def write_recording(name: str, text: str, gpu: dict[str, str], needs: tuple[str, ...]) -> Path:
    """Write what a cell printed on a GPU, with device, driver, versions and date; return the file."""
    short = gpu["name"].lower().replace("nvidia", "").replace("tesla", "").strip().replace(" ", "-")
    file = RECORDINGS / f"{name}.{short}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    recording = {
        "device": gpu["name"],
        "memory_mib": int(float(gpu["memory_mib"])),
        "driver": gpu["driver"],
        "versions": {package: metadata.version(package) for package in needs},
        "date": date.today().isoformat(),
        "text": text,
    }
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)
    return file


def recordings(name: str) -> list[dict[str, Any]]:
    """Return the recordings of a cell, by device."""
    stem = RECORDINGS / name
    files = sorted(stem.parent.glob(f"{stem.name}.*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _show(wanted: Options, namespace: dict[str, Any]) -> None:
    from IPython.display import display

    found = recordings(wanted.name)
    if found:
        display(_bundle([_replay(recording) for recording in found]), raw=True)
        return
    text = (
        f"Not executed: this cell needs a GPU with {wanted.memory_gib:g} GiB, and no recording of it exists yet.\n"
        "To run it, open this notebook on such a machine; `llminfra record` there writes the recording."
    )
    parts = [("gpu-missing", "No GPU, no recording", text)]
    if wanted.predict:
        predicted = namespace[wanted.predict]
        value = predicted() if callable(predicted) else predicted
        parts.append(("gpu-prediction", "Predicted by arithmetic, not measured", str(value)))
    display(_bundle(parts), raw=True)


def _replay(recording: dict[str, Any]) -> tuple[str, str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in recording["versions"].items())
    title = f"{recording['device']}, driver {recording['driver']}, {versions}, recorded {recording['date']}"
    return "gpu-recording", title, recording["text"].rstrip()


def _bundle(parts: list[tuple[str, str, str]]) -> dict[str, str]:
    """Return parts (class, title, text) as plain text and as HTML that folds without a script, the first part open."""
    plain = "\n\n".join(f"[{title}]\n{text}" for _, title, text in parts)
    folded = "\n".join(
        f'<details class="{kind}"{" open" if number == 0 or kind == "gpu-prediction" else ""}>'
        f'<summary>{html.escape(title)}</summary><pre tabindex="0">{html.escape(text)}</pre></details>'
        for number, (kind, title, text) in enumerate(parts)
    )
    return {"text/plain": plain, "text/html": folded}
