"""A twin speaks for its chapter, or says why not; what it holds can be compared."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from llminfra import twins

CHAPTERS = twins.chapters()
SANITIZE = twins.ROOT / "tests" / "nbval_sanitize.cfg"

TINY = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3}
---
# Tiny

```{code-cell} python3
from llminfra.recorder import sitecustomize
import yaml
print(yaml.__name__)
```

```{code-cell} python3
print(6 * 7)
```
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A project of one tiny chapter, executed once: its root."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("book", "notebooks", "src"):
        (root / folder).mkdir()
    shutil.copytree(twins.ROOT / "src" / "llminfra", root / "src" / "llminfra")
    for lock in twins.LOCKS:
        shutil.copy(twins.ROOT / lock, root / lock)
    chapter = root / "book" / "01-tiny.md"
    chapter.write_text(TINY)
    assert twins.write(twins.execute(chapter, root), twins.twin_path(chapter))
    return root


@pytest.fixture
def project(tiny, tmp_path):
    """A copy of the tiny project that a test may break."""
    root = tmp_path / "project"
    shutil.copytree(tiny, root)
    return root


def problems(root):
    return twins.problems(root / "book" / "01-tiny.md", root)


def edit(path: Path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_fresh_twin_has_no_problem(project):
    assert problems(project) == []


def test_a_changed_cell_is_named(project):
    edit(project / "book" / "01-tiny.md", "6 * 7", "6 * 8")
    (problem,) = problems(project)
    assert "code cell 2 (line 14: `print(6 * 8)`)" in problem
    assert "make notebooks" in problem


def test_an_added_cell_is_named(project):
    chapter = project / "book" / "01-tiny.md"
    chapter.write_text(chapter.read_text() + "\n```{code-cell} python3\nprint('new')\n```\n")
    (problem,) = problems(project)
    assert "code cell 3" in problem and "print('new')" in problem


def test_prose_alone_makes_nothing_stale(project):
    edit(project / "book" / "01-tiny.md", "# Tiny", "# Tiny, told better")
    assert problems(project) == []


def test_new_prose_reaches_the_twin_without_executing(project):
    chapter = project / "book" / "01-tiny.md"
    edit(chapter, "# Tiny", "# Tiny, told better")
    assert twins.write(twins.with_prose(chapter), twins.twin_path(chapter))
    twin = nbformat.read(twins.twin_path(chapter), 4)
    assert twin.cells[0].source == "# Tiny, told better"
    assert twin.cells[2].outputs[0].text == "42\n" and problems(project) == []
    assert not twins.write(twins.with_prose(chapter), twins.twin_path(chapter))
    edit(chapter, "6 * 7", "6 * 8")
    with pytest.raises(twins.TwinError, match="its code is not what was executed"):
        twins.with_prose(chapter)


def test_a_missing_twin_is_said(project):
    (project / "notebooks" / "01-tiny.ipynb").unlink()
    (problem,) = problems(project)
    assert "has no executed twin" in problem


def test_a_pin_makes_stale_only_what_imports_it(project):
    stamp = nbformat.read(project / "notebooks" / "01-tiny.ipynb", 4).metadata[twins.STAMP]
    assert "pyyaml" in stamp["distributions"] and "peft" not in stamp["distributions"]
    lock = project / "requirements.txt"
    pinned = twins.pins(project)
    edit(lock, f"peft=={pinned['peft']}", "peft==99.0")
    assert problems(project) == []
    edit(lock, f"pyyaml=={pinned['pyyaml']}", "pyyaml==99.0")
    (problem,) = problems(project)
    assert f"executed with pyyaml {pinned['pyyaml']}, now pinned to 99.0" in problem


def test_a_module_makes_stale_only_what_imports_it(project):
    lab = project / "src" / "llminfra" / "lab.py"
    lab.write_text(lab.read_text() + "\n# changed\n")
    assert problems(project) == []
    recorder = project / "src" / "llminfra" / "recorder" / "sitecustomize.py"
    recorder.write_text(recorder.read_text() + "\n# changed\n")
    (problem,) = problems(project)
    assert "src/llminfra/recorder/sitecustomize.py has changed" in problem


def test_executing_twice_gives_the_same_bytes(project):
    chapter = project / "book" / "01-tiny.md"
    twin_file = twins.twin_path(chapter)
    before = twin_file.read_bytes()
    assert not twins.write(twins.execute(chapter, project), twin_file)
    assert twin_file.read_bytes() == before


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
    twin_file = project / "notebooks" / "01-tiny.ipynb"
    assert nbval(twin_file).returncode == 0
    edit(twin_file, "42", "43")
    failed = nbval(twin_file)
    assert failed.returncode == 1
    assert "42" in failed.stdout and "43" in failed.stdout


def test_a_cell_that_writes_a_machine_path_or_stderr_is_refused(project):
    chapter = project / "book" / "01-tiny.md"
    edit(chapter, "print(6 * 7)", "print('/home/someone/model')")
    with pytest.raises(twins.TwinError, match=r"code cell 2 .* path of this machine: /home/someone"):
        twins.execute(chapter, project)
    edit(chapter, "print('/home/someone/model')", "import sys; print('oops', file=sys.stderr)")
    with pytest.raises(twins.TwinError, match=r"code cell 2 .* wrote to stderr: oops"):
        twins.execute(chapter, project)


def test_a_failing_cell_is_named(project):
    chapter = project / "book" / "01-tiny.md"
    edit(chapter, "print(6 * 7)", "1 / 0")
    with pytest.raises(twins.TwinError, match=r"code cell 2 \(line 14: `1 / 0`\) failed\n(.|\n)*ZeroDivisionError"):
        twins.execute(chapter, project)


def cells(*specs):
    return [twins.Cell(i, i, source, tuple(tags.split())) for i, (source, tags) in enumerate(specs, 1)]


def test_a_measured_cell_needs_both_tags_and_a_check_after_it():
    both = "measured nbval-ignore-output"
    assert not twins.unchecked_measurements(cells(("t = 1", both), ("check('x', t > 0)", "")))
    assert twins.unchecked_measurements(cells(("t = 1", both), ("print('x')", "")))
    assert twins.unchecked_measurements(cells(("t = 1", both), ("t = 2", both), ("check('x', t > 0)", "")))
    assert twins.unchecked_measurements(cells(("t = 1", "measured"), ("check('x', t > 0)", "")))
    assert twins.unchecked_measurements(cells(("t = 1", "nbval-ignore-output"), ("check('x', t > 0)", "")))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_can_be_trusted(chapter, record_property):
    assert twins.problems(chapter) == []
    found = twins.code_cells(chapter)
    assert twins.unchecked_measurements(found) == []
    twin_file = twins.twin_path(chapter)
    twin = nbformat.read(twin_file, 4)
    nbformat.validate(twin)
    assert twin == twins.with_prose(chapter), "the notebook's prose is not the chapter's: run `make notebooks`"
    strict, shown = twins.strict_share(twin)
    print(f"{chapter.stem}: {len(found)} cells executed, {strict} of {shown} outputs compared strictly")
    assert len(found) >= 20
    assert strict / shown >= 0.7, f"{strict} of {shown} outputs are compared strictly"
    assert twin_file.stat().st_size < 1_000_000
    assert not twins.MACHINE_PATH.search(twin_file.read_text())


def test_no_file_of_the_project_names_this_machine_or_leaves_it():
    if not (twins.ROOT / ".git").exists():
        pytest.skip("not a git checkout: what was committed cannot be told from what was built")
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    listed = subprocess.run(command, cwd=twins.ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = twins.ROOT / name
        if path.suffix in {".png", ".woff2"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert "../shared" not in text or path.name == Path(__file__).name, name
        if path.suffix == ".ipynb":
            json.loads(text)
    for lock in twins.ROOT.glob("requirements*.txt"):
        text = lock.read_text()
        assert not re.search(r"https?:|file:|^-|\s/", text, re.M), f"{lock.name} holds an address, a path or an option"
