"""A chapter, or another page with code, as a notebook: a MyST text in `book/`, and its executed twin in `notebooks/`.

A twin holds the same cells with the outputs of a real run, and a stamp of all that the run depended on (`stamp`). Nothing here
needs the engine, so that the site's small environment can ask too.
"""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupytext.myst import myst_to_notebook
from nbformat import NotebookNode

from ..errors import ChapterError

ROOT = Path(__file__).resolve().parents[3]
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}


@dataclass(frozen=True)
class Cell:
    """A code cell of a chapter: its number from 1 among the code cells, the lines of the chapter on which its fence and its code
    begin, its code, and its tags."""

    number: int
    line: int
    code_line: int
    source: str
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """How messages name the cell: number, line and its first line of code."""
        first = next((line for line in self.source.splitlines() if line.strip()), "(empty)")
        return f"code cell {self.number} (line {self.line}: `{first.strip()[:60]}`)"


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the chapters that are notebooks: every `book/NN-name.md` that holds a code cell, in order."""
    return [path for path in with_code(root) if is_chapter(path)]


def is_chapter(page: Path) -> bool:
    """Return whether a page is a chapter: its name begins with a number."""
    return page.name[:2].isdecimal()


def with_code(root: Path = ROOT) -> list[Path]:
    """Return the pages that are notebooks: every `book/*.md` that holds a code cell, chapters first, in order."""
    found = sorted((root / "book").glob("*.md"))
    return [path for path in found if "\n```{code-cell}" in path.read_text(encoding="utf-8")]


def short_name(page: Path) -> str:
    """Return what a command calls a page: a chapter by its number, any other by the name of its file."""
    return page.name[:2] if is_chapter(page) else page.stem


def twin_path(chapter: Path) -> Path:
    """Return where a page's twin stands: `notebooks/NAME.ipynb` beside `book/`."""
    return chapter.parent.parent / "notebooks" / f"{chapter.stem}.ipynb"


def read(chapter: Path) -> tuple[NotebookNode, list[Cell]]:
    """Return a chapter as a notebook without outputs, and its code cells with their lines.

    Cell ids count the cells, so that they never change by chance. Raises ChapterError if a chapter cannot be read, or has a code
    cell inside of another block.
    """
    text = chapter.read_text(encoding="utf-8")
    try:
        notebook = myst_to_notebook(text, add_source_map=True)
    except Exception as error:
        raise ChapterError(f"{chapter.name}: jupytext cannot read it: {error}") from error
    lines = text.splitlines()
    cells: list[Cell] = []
    for number, (cell, line) in enumerate(zip(notebook.cells, notebook.metadata["source_map"], strict=True), 1):
        cell.id = f"cell-{number:03d}"
        if cell.cell_type == "code":
            code_line = _place(cell.source.splitlines(), lines, line) + 1
            cells.append(Cell(len(cells) + 1, line, code_line, cell.source, tuple(cell.metadata.get("tags", []))))
    fences = sum(line.lstrip(" `~:").startswith("{code-cell}") for line in lines)
    if fences != len(cells):
        raise ChapterError(f"{chapter.name}: {fences} code-cell fences but {len(cells)} code cells; one is nested")
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook, cells


def _place(wanted: list[str], lines: list[str], start: int) -> int:
    """Return the first place at or after `start` where these lines stand: a cell's options come before its code."""
    places = range(start, len(lines) - len(wanted) + 1)
    return next((place for place in places if lines[place : place + len(wanted)] == wanted), start)


def convert(chapter: Path) -> NotebookNode:
    """Return a chapter as a notebook without outputs; raises as `read`."""
    return read(chapter)[0]


def code_cells(chapter: Path) -> list[Cell]:
    """Return the code cells of a chapter; raises as `read`."""
    return read(chapter)[1]


def as_python(source: str) -> str:
    """Return a cell's source with each magic turned into `pass`, line for line, so that it parses as Python.

    A magic is a line that begins a statement with % or !; inside of brackets these are operators.
    """
    lines = source.split("\n")
    for number in _magics(lines):
        lines[number] = re.match(r"\s*", lines[number]).group() + "pass"  # type: ignore[union-attr]
    return "\n".join(lines)


def magics(source: str) -> list[str]:
    """Return the lines of a cell's source that are magics."""
    lines = source.split("\n")
    return [lines[number] for number in _magics(lines)]


def _magics(lines: list[str]) -> list[int]:
    """Return the numbers, from 0, of the lines that are magics: those that Python's tokens begin a statement with."""
    found: list[int] = []
    rest = list(lines)
    while True:
        magic = _first_magic(rest)
        if magic is None:
            return found
        found.append(magic)
        rest[magic] = re.match(r"\s*", rest[magic]).group() + "pass"  # type: ignore[union-attr]


def _first_magic(lines: list[str]) -> int | None:
    depth, begins = 0, True
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline):
            if token.type in (tokenize.NEWLINE, tokenize.NL):
                begins = depth == 0
            elif token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT) or not token.string.strip():
                continue
            elif begins and token.string[0] in "%!":
                return token.start[0] - 1
            else:
                begins = False
                depth += (token.string in "([{") - (token.string in ")]}")
    except (tokenize.TokenError, SyntaxError):
        pass  # what is no Python is for its reader to say
    return None


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
