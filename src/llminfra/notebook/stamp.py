"""What a twin depends on, and whether it still speaks for its chapter.

A stamp names the files of the project that the run opened or listed, each with a digest of its meaning: comments, docstrings
and layout don't count. It also holds the versions of all packages that were imported; only those that pyproject.toml names
make a twin stale, the others are reported.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import yaml

from .chapter import ROOT, Cell, as_python, code_cells, magics, twin_path

KEY = "llminfra"
"""The stamp's place in a notebook's metadata."""
LOCKS = ("requirements.txt", "requirements-torch.txt")
SETUP = (*LOCKS, "pyproject.toml")
"""What `problems` reads beside chapters, twins and the files of stamps."""
REMEDY = "run `make notebooks`"
ABSENT = "absent"


def digest(data: str | bytes) -> str:
    """Return 16 hexadecimal digits of the sha256 of a text or of bytes."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


# The meaning of a file


def python_meaning(source: str) -> str:
    """Return Python code as a tree in words: without comments, layout, docstrings and texts that are no one's value.

    The same under every version of Python that builds the site; `ast.dump` is not. Raises SyntaxError.
    """
    return repr(_tree(ast.parse(source)))


UNUSED = {"ctx", "kind", "type_comment", "type_ignores"}
"""Fields of a syntax tree that follow from others, or hold comments."""


def _tree(node: Any) -> Any:
    if isinstance(node, ast.Constant):
        return "Constant", type(node.value).__name__, repr(node.value)
    if isinstance(node, ast.AST):
        fields = ((name, _tree(value)) for name, value in ast.iter_fields(node) if name not in UNUSED)
        # What is empty has no field in some versions of Python.
        return type(node).__name__, *sorted(pair for pair in fields if pair[1] not in (None, ()))
    if isinstance(node, list):
        return tuple(_tree(one) for one in node if not _is_text(one))
    return node


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def meaning(path: Path) -> str:
    """Return the digest of what a file says: code and data without comments and layout, anything else to the byte.

    Of a folder: of the names in it. Of what is not there: that it is absent.
    """
    if path.is_dir():
        names = (one.name for one in path.iterdir())
        return digest("\n".join(sorted(name for name in names if not re.match(r"\.|__pycache__|.*\.egg-info$", name))))
    if not path.is_file():
        return ABSENT
    status = path.stat()
    return _meaning(path, status.st_mtime_ns, status.st_size)


@cache
def _meaning(path: Path, _changed_ns: int, _size: int) -> str:
    data = path.read_bytes()
    try:
        if path.suffix == ".py":
            return digest(python_meaning(data.decode()))
        if path.suffix in READERS:
            return digest(json.dumps(READERS[path.suffix](data.decode()), sort_keys=True, default=str))
    except (SyntaxError, ValueError, yaml.YAMLError):
        pass  # what cannot be read counts as it stands
    return digest(data)


READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}


def cell_meaning(source: str, tags: Iterable[str]) -> str:
    """Return the digest of a code cell: its code without comments and layout, its magics, its tags.

    A semicolon at its end counts, since it hides the last value.
    """
    try:
        code = python_meaning(as_python(source))
    except SyntaxError:
        code = source
    return digest("\0".join([code, *magics(source), str(source.rstrip().endswith(";")), *tags]))


def code_digest(cells: Iterable[Cell]) -> str:
    """Return a digest of the code cells of a chapter."""
    return digest("\0".join(cell_meaning(cell.source, cell.tags) for cell in cells))


# Versions


def pins(root: Path = ROOT) -> dict[str, str]:
    """Return the version each lock line pins, by normalised distribution name."""
    found = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (root / lock).read_text(), re.M):
            found[normal(name)] = version
    return found


def direct(root: Path = ROOT) -> set[str]:
    """Return the normalised names of the distributions that the project itself asks for: in pyproject.toml, and torch."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [line for extra in project["optional-dependencies"].values() for line in extra]
    return {normal(re.match(r"[A-Za-z0-9._-]+", line).group()) for line in [*asked, "torch"]}  # type: ignore[union-attr]


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def moved(chapter: Path, root: Path = ROOT) -> list[tuple[str, str, str]]:
    """Return the packages whose version is another than the twin was executed with: name, version then, version now."""
    stamp = read(chapter)
    pinned = pins(root)
    then = stamp["distributions"].items() if stamp else ()
    return [(name, version, pinned.get(name, "nothing")) for name, version in then if pinned.get(name) != version]


def reported(chapter: Path, root: Path = ROOT) -> str:
    """Return in words which packages that the project does not ask for itself have another version now; or nothing."""
    ours = direct(root)
    others = [f"{name} {then} (now {now})" for name, then, now in moved(chapter, root) if name not in ours]
    return f"{chapter.stem}: executed with other versions of {', '.join(others)}" if others else ""


# Is it stale?


def read(chapter: Path) -> dict[str, Any] | None:
    """Return the stamp of a chapter's twin, or None where there is no twin or no stamp."""
    twin_file = twin_path(chapter)
    if not twin_file.is_file():
        return None
    found: dict[str, Any] | None = nbformat.read(twin_file, as_version=4).metadata.get(KEY)
    return found


def problems(chapter: Path, root: Path = ROOT) -> list[str]:
    """Return why a chapter's twin does not speak for it, a line each; an empty list when it does."""
    twin_file = twin_path(chapter)
    where = f"{chapter.parent.name}/{chapter.name}"
    if not twin_file.is_file():
        return [f"{where} has no executed twin; {REMEDY}"]
    twin = nbformat.read(twin_file, as_version=4)
    stamp = twin.metadata.get(KEY)
    if not stamp or "files" not in stamp:
        return [f"{where}: its twin has no stamp; {REMEDY}"]
    cells = code_cells(chapter)
    recorded = [cell for cell in twin.cells if cell.cell_type == "code"]
    for cell, old in zip(cells, recorded, strict=False):
        if cell_meaning(cell.source, cell.tags) != cell_meaning(old.source, old.metadata.get("tags", [])):
            return [f"{where}: {cell.name} is not the one that was executed; {REMEDY}"]
    if len(cells) != len(recorded):
        odd = cells[len(recorded)].name if len(cells) > len(recorded) else f"code cell {len(cells) + 1} of the twin"
        return [f"{where}: {odd} is in only one of chapter and twin; {REMEDY}"]
    if code_digest(cells) != stamp["code"]:
        return [f"{where}: the code is not what the stamp of its twin names; {REMEDY}"]
    found = [
        f"{where}: {path} has changed since the chapter was executed; {REMEDY}"
        for path, then in stamp["files"].items()
        if meaning(root / path) != then
    ]
    ours = direct(root)
    found += [
        f"{where}: executed with {name} {then}, now pinned to {now}; {REMEDY}"
        for name, then, now in moved(chapter, root)
        if name in ours
    ]
    return found
