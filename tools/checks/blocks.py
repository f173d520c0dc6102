"""Every fenced block of a page is executed, shown from a file that is checked, or checked by what would consume it.

One that cannot be says why in the line above it: `% unchecked: reason` (in README.md `<!-- unchecked: reason -->`).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from checks import Problem, formats, python, shell, source
from checks.source import ROOT, Block, Page

PYTHON = ("python", "py", "python3", "ipython3", "pycon")
# Files that a page may show, by folder, and who checks them there.
SHOWN = ("src/llminfra/", "exercises/", "tools/")

Table = Counter[tuple[str, str]]


def problems(pages: list[Page], root: Path = ROOT) -> tuple[list[Problem], Table]:
    """Return what is wrong with the blocks of these pages, and how many of each kind were executed, checked, excused."""
    found: list[Problem] = []
    table: Table = Counter()
    snippets: list[python.Snippet] = []
    for page in pages:
        before = ""
        for block in page.blocks:
            kind = _kind(block)
            if not kind:
                continue
            if block.excuses.get("unchecked"):
                table[kind, "excused"] += 1
                continue
            if block.directive == "code-cell":
                gpu = block.body.lstrip().startswith("%%gpu")
                if gpu:
                    snippets.append(python.Snippet(block.path, block.body_line, block.body, before))
                table["gpu cell" if gpu else kind, "checked" if gpu else "executed"] += 1
                before += block.body
                continue
            if kind in PYTHON and block.directive != "literalinclude":
                snippets.append(python.Snippet(block.path, block.body_line, block.body))
                table[kind, "checked"] += 1
                continue
            reasons = _shown(block, root) if block.directive == "literalinclude" else _read(block)
            found += [Problem(block.path, line, reason) for line, reason in reasons]
            table[kind, "included" if block.directive == "literalinclude" else "checked"] += 1
    for path in formats.deployed(root):
        check = formats.of_file(path)
        assert check is not None
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        found += [Problem(name, line, reason) for line, reason in check(text)]
        found += [Problem(name, line, f"in a comment: {reason}") for line, reason in shell.problems(_told(text), root)]
        table["file of deploy/", "checked"] += 1
    return sorted(found + python.problems(snippets, root)), table


def _told(text: str) -> str:
    """Return the commands that a file's comments tell its reader to run: their lines are indented; all others become empty."""
    told = (re.match(r"#   (.*)", line) for line in text.splitlines())
    return "\n".join(line[1] if line else "" for line in told) + "\n"


def _kind(block: Block) -> str:
    """Return what kind of code a block is; empty for a directive that the build itself reads."""
    if block.directive == "code-cell":
        return "cell"
    if block.directive in ("", "code-block", "code", "literalinclude"):
        return block.language.lower() or "plain"
    return ""


def _read(block: Block) -> list[tuple[int, str]]:
    check = formats.BY_LANGUAGE.get(block.language.lower())
    if check is None:
        name = f"`{block.language}`" if block.language else "a block without a language"
        return [
            (block.line, f"no check reads {name}: name a language that one reads, or say `% unchecked: reason` above")
        ]
    return [(block.body_line + line - 1 if line else block.line, reason) for line, reason in check(block.body)]


def _shown(block: Block, root: Path) -> list[tuple[int, str]]:
    """Return what is wrong with showing a file: it must be one that tests run or a check reads."""
    target = ((root / block.path).parent / block.argument).resolve()
    if not target.is_file():
        return [(block.line, f"there is no {block.argument}")]
    name = target.relative_to(root.resolve()).as_posix()
    checked = (name.startswith(SHOWN) and target.suffix == ".py") or target in formats.deployed(root)
    return [] if checked else [(block.line, f"nothing checks {name}: show code of {', '.join(SHOWN)} or deploy/")]


def rows(table: Table) -> list[str]:
    """Return the table as lines: blocks by kind; executed, included, checked, excused."""
    columns = ("executed", "included", "checked", "excused")
    kinds = sorted({kind for kind, _ in table})
    lines = [f"{'':16s}" + "".join(f"{column:>10s}" for column in columns)]
    lines += [f"{kind:16s}" + "".join(f"{table[kind, column]:>10d}" for column in columns) for kind in kinds]
    return lines


def of_course(root: Path = ROOT) -> tuple[list[Problem], Table]:
    """Return `problems` of every page of the course."""
    return problems([source.read(path, root) for path in source.sources(root)], root)
