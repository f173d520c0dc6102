"""Make a chapter's twin: execute it in a fresh kernel, and stamp it with all that the run used."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ..errors import ChapterError
from . import machine, record, stamp
from .chapter import NOT_COMPARED, ROOT, Cell, code_cells, convert, twin_path

RECORDINGS = "notebooks/recordings"
"""What a run on a GPU writes itself."""


def with_prose(chapter: Path) -> NotebookNode:
    """Return a chapter's twin with the chapter's words of today: for one whose code means what was executed.

    Raises ChapterError if the code has changed by more than comments and layout.
    """
    twin, fresh = nbformat.read(twin_path(chapter), as_version=4), convert(chapter)
    executed = [cell for cell in twin.cells if cell.cell_type == "code"]
    waiting = [cell for cell in fresh.cells if cell.cell_type == "code"]
    if [_meaning(cell) for cell in executed] != [_meaning(cell) for cell in waiting]:
        raise ChapterError(f"{chapter.name}: its code is not what was executed; run `make notebooks`")
    for old, new in zip(executed, waiting, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    fresh.metadata = twin.metadata
    return fresh


def _meaning(cell: NotebookNode) -> str:
    return stamp.cell_meaning(cell.source, cell.metadata.get("tags", []))


def execute(chapter: Path, root: Path = ROOT, timeout_s: int = 900) -> NotebookNode:
    """Execute a chapter in a fresh kernel and return its twin, stamped.

    Raises ChapterError naming the cell if one raises, or leaves text that holds a path of this machine; and if a file that the
    run used was changed while it ran.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook = convert(chapter)
    cells = iter(code_cells(chapter))
    current: list[Cell] = []

    def announce(cell: NotebookNode, **_: Any) -> None:
        if cell.cell_type == "code":
            current[:] = [next(cells)]
            print(f"  {chapter.name}: {current[0].name}", file=sys.stderr, flush=True)

    began_s = time.time()
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "used"
        client = NotebookClient(
            notebook,
            timeout=timeout_s,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(twin_path(chapter).parent)}},
            on_cell_start=announce,
        )
        try:
            client.execute(env=record.environment(noted, root, os.environ))
        except (CellExecutionError, CellTimeoutError) as error:
            raise ChapterError(f"{chapter.name}: {current[0].name} failed\n{error}") from None
        packages, paths = record.read(noted)
    _clean(notebook, chapter)
    notebook.metadata[stamp.KEY] = {
        "code": stamp.code_digest(code_cells(chapter)),
        "files": _files(paths, root, began_s, chapter),
        "distributions": _versions(packages, root),
        "python": platform.python_version(),
        "machine": machine.described(),
        "date": date.today().isoformat(),
    }
    return notebook


def _files(paths: set[str], root: Path, began_s: float, chapter: Path) -> dict[str, str]:
    """Return the digest of each file and folder that was used. Raises ChapterError if one was changed meanwhile."""
    for path in record.changed(paths, root, began_s):
        if not path.startswith(RECORDINGS):
            raise ChapterError(f"{chapter.name}: {path} was changed while the chapter ran; run it again")
    return {path: stamp.meaning(root / path) for path in sorted(paths)}


def _versions(packages: set[str], root: Path) -> dict[str, str]:
    """Return the versions of the locked distributions that provide these top-level packages."""
    providers = metadata.packages_distributions()
    names = {stamp.normal(name) for package in packages for name in providers.get(package, [])}
    locked = stamp.pins(root)
    return {name: metadata.version(name) for name in sorted(names) if name in locked}


MACHINE_PATH = re.compile(r"(?<![\w.<>-])/(?:home|root|Users|work|tmp|var/tmp|opt)/[\w.-]+")


def _clean(notebook: NotebookNode, chapter: Path) -> None:
    """Join streams, drop what differs by chance, and refuse what should not reach a page: stderr and machine paths."""
    cells = iter(code_cells(chapter))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        named = next(cells).name
        joined: list[NotebookNode] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stderr":
                    raise ChapterError(f"{chapter.name}: {named} wrote to stderr: {output.text.strip()[:300]}")
                if joined and joined[-1].output_type == "stream":
                    joined[-1].text += output.text
                    continue
            joined.append(output)
        cell.outputs = joined
        leak = MACHINE_PATH.search(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))
        if leak:
            raise ChapterError(f"{chapter.name}: {named} shows a path of this machine: {leak.group()}")


def reproduced(before: NotebookNode, after: NotebookNode) -> bool:
    """Return whether two twins hold the same cells, and the same outputs wherever outputs are compared; images never are."""

    def compared(twin: NotebookNode) -> list[Any]:
        return [
            (_meaning(cell), [] if NOT_COMPARED & set(cell.metadata.get("tags", [])) else list(map(said, cell.outputs)))
            for cell in twin.cells
            if cell.cell_type == "code"
        ]

    def said(output: NotebookNode) -> Any:
        data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        return output.output_type, output.get("text"), data

    return compared(before) == compared(after)


def write(notebook: NotebookNode, twin_file: Path) -> bool:
    """Write a twin under a temporary name and rename it; keep the old file where only the date differs.

    Returns whether the file changed.
    """
    if twin_file.is_file():
        old = nbformat.read(twin_file, as_version=4)
        dated = {**notebook.metadata[stamp.KEY], "date": old.metadata.get(stamp.KEY, {}).get("date")}
        if nbformat.writes(old) == nbformat.writes(
            nbformat.from_dict({**notebook, "metadata": {**notebook.metadata, stamp.KEY: dated}})
        ):
            return False
    twin_file.parent.mkdir(exist_ok=True)
    temporary = twin_file.with_suffix(".ipynb.part")
    nbformat.write(notebook, temporary)
    temporary.replace(twin_file)
    return True
