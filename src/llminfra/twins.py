"""The executed twin of a chapter: what is in it, when it is stale, and how it is made.

A chapter is a MyST text notebook in `book/`; its twin in `notebooks/` holds the same cells with the outputs of a real
run, and a stamp of all that the run depended on. The site shows a twin's outputs and never executes; `problems` is the
one place that decides whether a twin still speaks for its chapter. Nothing here needs the engine, so that the site's
small environment can ask too.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
STAMP = "llminfra"
LOCKS = ("requirements.txt", "requirements-torch.txt")
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}


class TwinError(Exception):
    """A chapter that cannot be read, or a cell of it that failed."""


@dataclass(frozen=True)
class Cell:
    """A code cell of a chapter: its number from 1 among the code cells, and the line of the chapter it starts on."""

    number: int
    line: int
    source: str
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """How messages name the cell: number, line and its first line of code."""
        first = next((line for line in self.source.splitlines() if line.strip()), "(empty)")
        return f"code cell {self.number} (line {self.line}: `{first.strip()[:60]}`)"


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the chapters that are notebooks: every `book/NN-name.md` that holds a code cell, in order."""
    found = sorted((root / "book").glob("[0-9][0-9]-*.md"))
    return [path for path in found if "\n```{code-cell}" in path.read_text(encoding="utf-8")]


def twin_path(chapter: Path) -> Path:
    """Return where a chapter's twin stands: `notebooks/NN-name.ipynb` beside `book/`."""
    return chapter.parent.parent / "notebooks" / f"{chapter.stem}.ipynb"


def convert(chapter: Path) -> NotebookNode:
    """Return a chapter as a notebook without outputs; cell ids count the cells, so that they never change by chance.

    Raises TwinError if jupytext cannot read it.
    """
    try:
        notebook = jupytext.reads(chapter.read_text(encoding="utf-8"), fmt="md:myst")
    except Exception as error:
        raise TwinError(f"{chapter.name}: jupytext cannot read it: {error}") from error
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:03d}"
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def code_cells(chapter: Path) -> list[Cell]:
    """Return the code cells of a chapter with the lines they start on."""
    text = chapter.read_text(encoding="utf-8")
    lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(r"^```\{code-cell\}", text, re.M)]
    cells = [cell for cell in convert(chapter).cells if cell.cell_type == "code"]
    if len(lines) != len(cells):
        raise TwinError(f"{chapter.name}: {len(lines)} code-cell fences but {len(cells)} code cells; one is nested")
    return [
        Cell(number, line, cell.source, tuple(cell.metadata.get("tags", [])))
        for number, (line, cell) in enumerate(zip(lines, cells, strict=True), 1)
    ]


# What a twin depends on


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _module_file(name: str, root: Path) -> Path | None:
    base = root / "src" / Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _names_modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the llminfra modules that code imports, also relatively, or names in a string (`python -m llminfra.x`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def module_digests(sources: list[str], root: Path = ROOT) -> dict[str, str]:
    """Return a digest of every llminfra file that cells with these sources import, directly or through another.

    Keys are paths below `src/llminfra`; the data files beside a module count with it.
    """
    found: dict[str, str] = {}
    waiting: list[tuple[ast.AST, str]] = [(ast.parse(as_python(source)), "") for source in sources]
    while waiting:
        tree, package = waiting.pop()
        for name in _names_modules(tree, package):
            if not name.startswith("llminfra"):
                continue
            path = _module_file(name, root)
            if path is None:
                continue
            key = path.relative_to(root / "src" / "llminfra").as_posix()
            if key in found:
                continue
            data = path.read_bytes()
            found[key] = _digest(data)
            for beside in sorted((path.parent / "data").glob("*.json")):
                found[beside.relative_to(root / "src" / "llminfra").as_posix()] = _digest(beside.read_bytes())
            waiting.append((ast.parse(data), name if path.name == "__init__.py" else name.rpartition(".")[0]))
    return dict(sorted(found.items()))


def as_python(source: str) -> str:
    """Return a cell's source with magics turned into comments, so that it parses as Python."""
    return re.sub(r"^\s*[%!].*$", "pass", source, flags=re.M)


def pins(root: Path = ROOT) -> dict[str, str]:
    """Return the version each lock line pins, by normalised distribution name."""
    found = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (root / lock).read_text(), re.M):
            found[_normal(name)] = version
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def code_digest(cells: list[Cell]) -> str:
    """Return a digest of the code cells and their tags."""
    return _digest("\0".join(part for cell in cells for part in (cell.source, *cell.tags)).encode())


# Is it stale?


def problems(chapter: Path, root: Path = ROOT) -> list[str]:
    """Return why a chapter's twin does not speak for it, a line each; an empty list when it does."""
    remedy = "run `make notebooks`"
    twin_file = twin_path(chapter)
    where = f"{chapter.parent.name}/{chapter.name}"
    if not twin_file.is_file():
        return [f"{where} has no executed twin; {remedy}"]
    twin = nbformat.read(twin_file, as_version=4)
    stamp = twin.metadata.get(STAMP)
    if not stamp:
        return [f"{where}: its twin has no stamp; {remedy}"]
    cells = code_cells(chapter)
    recorded = [cell for cell in twin.cells if cell.cell_type == "code"]
    for cell, old in zip(cells, recorded, strict=False):
        if (cell.source, cell.tags) != (old.source, tuple(old.metadata.get("tags", []))):
            return [f"{where}: {cell.name} is not the one that was executed; {remedy}"]
    if len(cells) != len(recorded):
        odd = cells[len(recorded)].name if len(cells) > len(recorded) else f"code cell {len(cells) + 1} of the twin"
        return [f"{where}: {odd} stands in only one of chapter and twin; {remedy}"]
    if code_digest(cells) != stamp["code"]:
        return [f"{where}: the code is not what the stamp of its twin names; {remedy}"]
    digests = module_digests([cell.source for cell in cells], root)
    found = [
        f"{where}: src/llminfra/{path} has changed since the chapter was executed; {remedy}"
        for path in sorted({*digests, *stamp["modules"]})
        if digests.get(path) != stamp["modules"].get(path)
    ]
    pinned = pins(root)
    found += [
        f"{where}: executed with {name} {version}, now pinned to {pinned.get(name, 'nothing')}; {remedy}"
        for name, version in stamp["distributions"].items()
        if pinned.get(name) != version
    ]
    return found


def strict_share(twin: NotebookNode) -> tuple[int, int]:
    """Return how many cells have outputs that are compared strictly, and how many have outputs at all.

    A cell with nothing but an image counts as not compared, since nbval does not compare images.
    """
    shown = [cell for cell in twin.cells if cell.cell_type == "code" and cell.outputs]
    strict = [
        cell
        for cell in shown
        if not NOT_COMPARED & set(cell.metadata.get("tags", []))
        and any(
            out.output_type == "stream" or not any(k.startswith("image/") for k in out.data) for out in cell.outputs
        )
    ]
    return len(strict), len(shown)


def unchecked_measurements(cells: list[Cell]) -> list[Cell]:
    """Return the measured cells that no `check` follows before the next measured cell, or that are tagged by half."""
    wrong = []
    for position, cell in enumerate(cells):
        measured, ignored = "measured" in cell.tags, "nbval-ignore-output" in cell.tags
        if measured != ignored:
            wrong.append(cell)
        elif measured:
            rest = cells[position + 1 : position + 2]
            if not any(re.search(r"^\s*check\(", following.source, re.M) for following in rest):
                wrong.append(cell)
    return wrong


# Making one


def with_prose(chapter: Path) -> NotebookNode:
    """Return a chapter's twin with the chapter's prose of today: for one whose code has not changed, without executing.

    Raises TwinError if the code has changed.
    """
    twin, fresh = nbformat.read(twin_path(chapter), as_version=4), convert(chapter)
    executed = [cell for cell in twin.cells if cell.cell_type == "code"]
    waiting = [cell for cell in fresh.cells if cell.cell_type == "code"]
    if [cell.source for cell in executed] != [cell.source for cell in waiting]:
        raise TwinError(f"{chapter.name}: its code is not what was executed; run `make notebooks`")
    for old, new in zip(executed, waiting, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    fresh.metadata = twin.metadata
    return fresh


def execute(chapter: Path, root: Path = ROOT, timeout_s: int = 900) -> NotebookNode:
    """Execute a chapter in a fresh kernel and return its twin, stamped.

    Raises TwinError naming the cell if one raises, or leaves text that holds a path of this machine.
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

    with tempfile.TemporaryDirectory() as folder:
        imported = Path(folder) / "imports"
        imported.touch()
        recorder = str(Path(__file__).parent / "recorder")
        path = os.pathsep.join(filter(None, [recorder, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "LLMINFRA_RECORD_IMPORTS": str(imported), "PYTHONPATH": path}
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
            client.execute(env=env)
        except (CellExecutionError, CellTimeoutError) as error:
            raise TwinError(f"{chapter.name}: {current[0].name} failed\n{error}") from None
        packages = set(imported.read_text().split())
    _clean(notebook, chapter)
    done = code_cells(chapter)
    notebook.metadata[STAMP] = {
        "code": code_digest(done),
        "modules": module_digests([cell.source for cell in done], root),
        "distributions": _versions(packages, root),
        "python": platform.python_version(),
        "machine": _machine(),
        "date": date.today().isoformat(),
    }
    return notebook


def _versions(packages: set[str], root: Path) -> dict[str, str]:
    """Return the versions of the locked distributions that provide these top-level packages."""
    providers = metadata.packages_distributions()
    names = {_normal(name) for package in packages for name in providers.get(package, [])}
    locked = pins(root)
    return {name: metadata.version(name) for name in sorted(names) if name in locked}


def _machine() -> str:
    """Return processor, cores and memory in words, with nothing that names the host."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB"


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
                    raise TwinError(f"{chapter.name}: {named} wrote to stderr: {output.text.strip()[:300]}")
                if joined and joined[-1].output_type == "stream":
                    joined[-1].text += output.text
                    continue
            joined.append(output)
        cell.outputs = joined
        leak = MACHINE_PATH.search(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))
        if leak:
            raise TwinError(f"{chapter.name}: {named} shows a path of this machine: {leak.group()}")


def write(notebook: NotebookNode, twin_file: Path) -> bool:
    """Write a twin under a temporary name and rename it; keep the old file where only the date differs.

    Returns whether the file changed.
    """
    if twin_file.is_file():
        old = nbformat.read(twin_file, as_version=4)
        dated = {**notebook.metadata[STAMP], "date": old.metadata.get(STAMP, {}).get("date")}
        if nbformat.writes(old) == nbformat.writes(
            nbformat.from_dict({**notebook, "metadata": {**notebook.metadata, STAMP: dated}})
        ):
            return False
    twin_file.parent.mkdir(exist_ok=True)
    temporary = twin_file.with_suffix(".ipynb.part")
    nbformat.write(notebook, temporary)
    temporary.replace(twin_file)
    return True
