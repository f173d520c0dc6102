"""What was executed and found good on this kind of machine, and when, so that nothing unchanged is executed twice.

An entry is a file in a cache folder outside of the project. It names every input by its digest and stands only while each is
the same: one changed module, output, lock or processor, and the work is done again. LLMINFRA_FRESH=1 lets no entry stand.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import nbformat

from ..models import cache_folder
from . import machine, stamp
from .chapter import ROOT, twin_path

SANITIZE = "tests/nbval_sanitize.cfg"
"""What nbval takes for the same output."""


@dataclass(frozen=True)
class Entry:
    """That something was executed and found good: when (local time, to the minute), by what, how long, with which inputs."""

    when: str
    by: str
    seconds: float
    inputs: dict[str, str]


def standing(what: str, name: str, inputs: Mapping[str, str]) -> Entry | None:
    """Return the entry for these very inputs, or None. `what` is a kind of work: notebook, gates, Lighthouse."""
    entry = _last(what, name, inputs)
    return entry if entry and entry.inputs == dict(inputs) and not os.environ.get("LLMINFRA_FRESH") else None


def changed(what: str, name: str, inputs: Mapping[str, str]) -> list[str]:
    """Return which inputs are others than those of the last entry on this kind of machine; without one, an empty list."""
    entry = _last(what, name, inputs)
    if entry is None:
        return []
    return sorted(key for key in {*entry.inputs, *inputs} if entry.inputs.get(key) != inputs.get(key))


def enter(what: str, name: str, inputs: Mapping[str, str], by: str, seconds: float) -> None:
    """Write that something was executed and found good just now, under a temporary name first."""
    file = _file(what, name, inputs)
    file.parent.mkdir(parents=True, exist_ok=True)
    entry = Entry(datetime.now().isoformat(" ", "minutes"), by, round(seconds, 1), dict(inputs))
    temporary = file.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps(asdict(entry), indent=1), encoding="utf-8")
    temporary.replace(file)


def _last(what: str, name: str, inputs: Mapping[str, str]) -> Entry | None:
    """Return the last entry on the kind of machine that the inputs name; one that cannot be read is none."""
    try:
        return Entry(**json.loads(_file(what, name, inputs).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _file(what: str, name: str, inputs: Mapping[str, str]) -> Path:
    return cache_folder() / "ledger" / what / f"{name.replace('/', '.')}.{stamp.digest(inputs['machine'])}.json"


def recorded(
    what: str, name: str, common: Mapping[str, str], meaning: Callable[[Path], str] = stamp.meaning, root: Path = ROOT
) -> Entry | None:
    """Return the entry of work whose other inputs are what it was seen to use, if none of them has changed; else None.

    `common` are inputs known beforehand, `surroundings` among them; `meaning` gives the digest of a path below `root`. Enter
    such work with `common` and the digests of what `record.read` says.
    """
    entry = _last(what, name, common)
    if entry is None:
        return None
    return standing(
        what, name, {**{path: meaning(root / path) for path in entry.inputs if path not in common}, **common}
    )


def surroundings(root: Path = ROOT, masked: str | None = None) -> dict[str, str]:
    """Return the inputs that all work has in common: machine, Python, and what the locks install."""
    locked = "".join((root / lock).read_text(encoding="utf-8") for lock in stamp.LOCKS)
    return {"machine": machine.kind(masked), "Python": platform.python_version(), "locks": stamp.digest(locked)}


def notebook_inputs(chapter: Path, root: Path = ROOT, masked: str | None = None) -> dict[str, str]:
    """Return the inputs of a chapter's execution: its twin's code and outputs, and all that its stamp names, as it is now.

    `masked` names the abilities to which the processor is masked for it. The words around the cells, and comments in them,
    don't count. Raises FileNotFoundError without a twin.
    """
    twin = nbformat.read(twin_path(chapter), as_version=4)
    cells = [
        [stamp.cell_meaning(cell.source, cell.metadata.get("tags", [])), cell.outputs]
        for cell in twin.cells
        if cell.cell_type == "code"
    ]
    stamped = twin.metadata.get(stamp.KEY, {})
    return {
        **surroundings(root, masked),
        "twin": stamp.digest(json.dumps([cells, stamped], sort_keys=True)),
        SANITIZE: stamp.meaning(root / SANITIZE),
        **{path: stamp.meaning(root / path) for path in stamped.get("files", {})},
    }
