"""An exercise's starter, derived from its solution: what stands between marks is taken out, and what to begin with put in.

    # solution R2          begins what the learner writes, and names its requirements
    # starter: CODE        a line that the starter has in its place (none, one or several, first in the region)
    ...                    the solution's lines, which the starter has not
    # end solution

In a starter the region is one comment, `# R2: your code`, and its own lines. Files without marks are in both as they are.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..errors import ExerciseError

BEGIN = re.compile(r"^(\s*)(#|//|--) solution (R\d+(?:, R\d+)*)\s*$")
START = re.compile(r"^\s*(?:#|//|--) starter: ?(.*)$")
END = re.compile(r"^\s*(?:#|//|--) end solution\s*$")
ALONE = ("EXPLANATION.md",)
"""Files of a solution that its starter does not have."""


def derived(text: str, name: str = "") -> str:
    """Return the starter's version of a solution's file. Raises ExerciseError for a region that does not end."""
    lines: list[str] = []
    indent, inside, first = "", 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if begin := BEGIN.match(line):
            if inside:
                raise ExerciseError(f"{name}:{number}: a solution begins inside the one of line {inside}")
            indent, inside, first = begin[1], number, True
            lines.append(f"{indent}{begin[2]} {begin[3]}: your code")
        elif inside and END.match(line):
            inside = 0
        elif inside:
            start = START.match(line) if first else None
            first = start is not None
            if start:
                lines.append(f"{indent}{start[1]}".rstrip())
        else:
            lines.append(line)
    if inside:
        raise ExerciseError(f"{name}:{inside}: the solution that begins here does not end")
    return "\n".join(lines) + "\n"


def files(solution: Path) -> dict[str, bytes]:
    """Return the starter's files by their path, as the solution implies them."""
    found = {}
    for path in sorted(solution.rglob("*")):
        name = path.relative_to(solution).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and name not in ALONE:
            content = path.read_bytes()
            found[name] = derived(content.decode(), str(path)).encode() if _is_text(content) else content
    return found


def problems(exercise: Path) -> list[str]:
    """Return where the committed starter differs from what its solution implies."""
    wanted, folder = files(exercise / "solution"), exercise / "starter"
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    there = {name: path for name, path in there.items() if "__pycache__" not in path.parts}
    said = "run make starters"
    found = [f"{folder / name}: is missing; {said}" for name in wanted.keys() - there.keys()]
    found += [f"{folder / name}: is not in the solution; {said}" for name in there.keys() - wanted.keys()]
    found += [
        f"{folder / name}: differs from what the solution implies; {said}"
        for name in wanted.keys() & there.keys()
        if there[name].read_bytes() != wanted[name]
    ]
    return sorted(found)


def write(exercise: Path) -> None:
    """Write the starter anew."""
    folder = exercise / "starter"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files(exercise / "solution").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _is_text(content: bytes) -> bool:
    return b"\0" not in content
