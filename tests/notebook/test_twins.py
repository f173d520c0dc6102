"""A twin speaks for its chapter, or says why not; what it holds can be compared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from llminfra.notebook import execute, stamp
from llminfra.notebook.chapter import (
    ROOT,
    Cell,
    ChapterError,
    chapters,
    code_cells,
    is_chapter,
    short_name,
    strict_share,
    twin_path,
    unchecked_measurements,
    with_code,
)

PAGE = "# A page\n\n```{code-cell} python3\nprint(6 * 7)\n```\n"
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"


def test_executing_twice_gives_the_same_bytes(project):
    before = project.twin.read_bytes()
    assert not execute.write(project.execute(), project.twin)
    assert project.twin.read_bytes() == before


def test_a_file_that_is_changed_while_it_is_used_is_said(project):
    project.edit("book/01-tiny.md", "print(6 * 7)", "Path(tables.__file__).touch()\nprint(6 * 7)")
    with pytest.raises(
        ChapterError, match=r"src/llminfra/calc/tables\.py was changed while the chapter ran; run it again"
    ):
        project.execute()


def test_a_run_that_gives_the_same_outputs_reproduces_its_twin(project):
    before, again = nbformat.read(project.twin, 4), project.execute()
    assert execute.reproduced(before, again)
    before.cells[2].outputs[0].text = "43\n"
    assert not execute.reproduced(before, again)
    before.cells[2].metadata["tags"] = again.cells[2].metadata["tags"] = ["nbval-ignore-output"]
    assert execute.reproduced(before, again)


def nbval(notebook: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        f"--nbval-sanitize-with={SANITIZE}",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run([*command, "-c", "/dev/null", str(notebook)], capture_output=True, text=True, timeout=240)


def test_nbval_fails_when_a_strict_output_differs(project):
    assert nbval(project.twin).returncode == 0
    project.edit("notebooks/01-tiny.ipynb", "42", "43")
    failed = nbval(project.twin)
    assert failed.returncode == 1
    assert "42" in failed.stdout and "43" in failed.stdout


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('/home/someone/model')", r"code cell 2 .* path of this machine: /home/someone"),
        ("import sys; print('oops', file=sys.stderr)", r"code cell 2 .* wrote to stderr: oops"),
        ("1 / 0", r"code cell 2 \(line 27: `1 / 0`\) failed\n(.|\n)*ZeroDivisionError"),
    ],
)
def test_a_cell_that_should_not_reach_a_page_is_named(project, code, says):
    project.edit("book/01-tiny.md", "print(6 * 7)", code)
    with pytest.raises(ChapterError, match=says):
        project.execute()


def cells(*specs):
    return [Cell(i, i, i + 1, source, tuple(tags.split())) for i, (source, tags) in enumerate(specs, 1)]


def test_a_measured_cell_needs_both_tags_and_a_check_after_it():
    both = "measured nbval-ignore-output"
    assert not unchecked_measurements(cells(("t = 1", both), ("check('x', t > 0)", "")))
    assert unchecked_measurements(cells(("t = 1", both), ("print('x')", "")))
    assert unchecked_measurements(cells(("t = 1", both), ("t = 2", both), ("check('x', t > 0)", "")))
    assert unchecked_measurements(cells(("t = 1", "measured"), ("check('x', t > 0)", "")))
    assert unchecked_measurements(cells(("t = 1", "nbval-ignore-output"), ("check('x', t > 0)", "")))


def test_a_page_with_code_is_a_notebook_whether_or_not_it_is_a_chapter(tmp_path):
    (tmp_path / "book").mkdir()
    for name, text in {"a-page": PAGE, "02-second": PAGE, "01-first": PAGE, "b-page": "# No code"}.items():
        (tmp_path / "book" / f"{name}.md").write_text(text)
    assert [path.stem for path in with_code(tmp_path)] == ["01-first", "02-second", "a-page"]
    assert [path.stem for path in chapters(tmp_path)] == ["01-first", "02-second"]
    assert list(map(short_name, with_code(tmp_path))) == ["01", "02", "a-page"]


@pytest.mark.parametrize("chapter", with_code(), ids=lambda path: path.stem)
def test_a_page_with_code_can_be_trusted(chapter, record_property):
    assert stamp.problems(chapter) == []
    found = code_cells(chapter)
    assert unchecked_measurements(found) == []
    twin_file = twin_path(chapter)
    twin = nbformat.read(twin_file, 4)
    nbformat.validate(twin)
    assert twin == execute.with_prose(chapter), "the notebook's prose is not the chapter's: run `make notebooks`"
    strict, shown = strict_share(twin)
    print(f"{chapter.stem}: {len(found)} cells executed, {strict} of {shown} outputs compared strictly")
    assert len(found) >= 20 or not is_chapter(chapter)
    assert strict / shown >= 0.7, f"{strict} of {shown} outputs are compared strictly"
    assert twin_file.stat().st_size < 1_000_000
    assert not execute.MACHINE_PATH.search(twin_file.read_text())


def test_no_file_of_the_project_names_this_machine_or_leaves_it():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what was committed cannot be told from what was built")
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".woff2"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert "../shared" not in text or path.name == Path(__file__).name, name
        if path.suffix == ".ipynb":
            json.loads(text)
    for lock in ROOT.glob("requirements*.txt"):
        text = lock.read_text()
        assert not re.search(r"https?:|file:|^-|\s/", text, re.M), f"{lock.name} holds an address, a path or an option"
