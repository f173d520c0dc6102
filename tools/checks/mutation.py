"""Does a notebook's run fail when a claim of it is false? Turn conditions round, run it as `make test` does, and see."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import nbformat

from checks import claims
from checks.source import ROOT
from llminfra.notebook.chapter import code_cells, convert


@dataclass(frozen=True)
class Mutant:
    """A code cell, by its number from 1, whose first `check` was turned round, and what that claims."""

    cell: int
    source: str
    claim: str


def invert(source: str) -> tuple[str, str] | None:
    """Return a cell's code with the condition of its first `check` turned round, and the claim; None without one.

    The rest of the cell still runs, since later cells use what it makes; then the failure is raised.
    """
    tree = ast.parse(source)
    turned: list[str] = []

    class Turn(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.stmt:
            if turned or node.value not in list(claims.check_calls(node)):
                return node
            assert isinstance(node.value, ast.Call)
            claim, condition = node.value.args
            condition = (
                condition.body if isinstance(condition, ast.Lambda) else condition
            )  # measured once: it must fail
            turned.append(ast.unparse(claim))
            call = f"check({ast.unparse(claim)}, not ({ast.unparse(condition)}))"
            return ast.parse(f"try:\n    {call}\nexcept AssertionError as error:\n    refused = error").body[0]

    changed = Turn().visit(tree)
    return (f"{ast.unparse(changed)}\nraise refused", turned[0]) if turned else None


def mutants(chapter: Path, sample: int | None = None) -> list[Mutant]:
    """Return a mutant of each cell that checks something, or of the first `sample` of them."""
    found = []
    for cell in code_cells(chapter):
        inverted = None if cell.source.lstrip().startswith("%") else invert(cell.source)
        if inverted:
            found.append(Mutant(cell.number, *inverted))
    return found[:sample]


def survivors(chapter: Path, chosen: list[Mutant]) -> list[str]:
    """Run a chapter up to the last mutant and return each that did not fail by its claim, and each other cell that failed."""
    notebook = convert(chapter)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][: chosen[-1].cell]
    for mutant in chosen:
        cells[mutant.cell - 1].source = mutant.source
    notebook.cells = cells
    said = _run(notebook)
    expected = {mutant.cell: mutant.claim for mutant in chosen}
    problems = []
    for number in range(1, len(cells) + 1):
        if number not in expected and said[number]:
            problems.append(f"{chapter.name}: code cell {number} fails by itself: {said[number][-300:]}")
        elif number in expected and "CheckFailed" not in said[number]:
            problems.append(
                f"{chapter.name}: code cell {number}: with its condition turned round, "
                f"check({expected[number]}, …) does not fail: {said[number][-300:] or 'the cell passes'}"
            )
    return problems


def _run(notebook: nbformat.NotebookNode) -> dict[int, str]:
    """Run a notebook under nbval, outputs not compared; return what each code cell's failure says, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path, report, said = Path(folder, "mutant.ipynb"), Path(folder, "report.xml"), Path(folder, "said")
        nbformat.write(notebook, path)
        options = ["-p", "no:cacheprovider", "-o", "addopts=", "--rootdir", folder, "-q"]
        command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=600", *options]
        with said.open("w") as file:  # a pipe would end with the last process that the notebook started
            subprocess.run(
                [*command, f"--junitxml={report}", "-c", str(ROOT / "pyproject.toml"), str(path)],
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not report.is_file():
            raise RuntimeError(f"the notebook did not run: {said.read_text(encoding='utf-8')[-500:]}")
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return {
            number: "".join(part.text or "" for part in case if part.tag in ("failure", "error"))
            for number, case in enumerate(cases, 1)
        }
