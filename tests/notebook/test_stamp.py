"""A stamp names what a run used and nothing else; what changes its meaning makes the twin stale, and nothing else does."""

import json
import shutil

import nbformat
import pytest

from llminfra.notebook import execute, stamp
from llminfra.notebook.chapter import ROOT, as_python, chapters, magics

SRC = "src/llminfra"


def test_a_fresh_twin_has_no_problem(project):
    assert project.problems() == []


def test_what_the_cells_and_their_processes_touched_is_recorded_and_nothing_else(project):
    files = set(stamp.read(project.chapter)["files"])
    used = {"calc/tables.py", "calc/data/prices.json", "web/svg.py", "web/markup.py", "rag/company"}
    assert {f"{SRC}/{name}" for name in used} <= files
    assert f"{SRC}/rag/company/sales/price-list-2026.md" in files, "a file that a program was told to read"
    unused = {"notebook/lab.py", "calc/data/api_prices.json", "rag/chunk.py", "rag/company/hr", "calc", "."}
    assert not {f"{SRC}/{name}" for name in unused} & files
    assert {name for name in files if not name.startswith(SRC)} == {"recordings"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("calc/tables.py", "    if name not in _loaded:\n", "    if (\n        name not in _loaded  # once\n    ):\n"),
        ("calc/tables.py", '"""Return a data file, as it stands', '"""Give a data file as it is'),
        ("web/svg.py", "\n\n\n", "\n\n# A comment.\n\n\n\n"),
        ("calc/data/prices.json", "{", "{\n\n\n  "),
    ],
)
def test_comments_docstrings_and_layout_make_nothing_stale(project, name, old, new):
    project.edit(name, old, new)
    assert project.problems() == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("calc/tables.py", "return _loaded[name]", "return dict(_loaded[name])"),
        ("web/svg.py", "def ", "changed = 1\n\n\ndef "),
        ("web/markup.py", "def ", "changed = 1\n\n\ndef "),
        ("calc/data/prices.json", '"read"', '"seen"'),
        ("rag/company/sales/price-list-2026.md", "#", "##"),
    ],
)
def test_a_change_of_meaning_makes_stale_and_is_named(project, name, old, new):
    project.edit(name, old, new)
    assert project.problems() == [
        f"book/01-tiny.md: {SRC}/{name} has changed since the chapter was executed; run `make notebooks`"
    ]


def test_a_file_that_came_into_a_listed_folder_or_went_is_named(project):
    (project.path("rag/company") / "legal").mkdir()
    (project.path("rag/company") / "__pycache__").mkdir()
    assert [f"{SRC}/rag/company has changed" in problem for problem in project.problems()] == [True]
    (project.path("rag/company") / "legal").rmdir()
    assert project.problems() == []
    (project.root / "recordings").mkdir()
    assert ["recordings has changed" in problem for problem in project.problems()] == [True], "it was not there before"
    (project.root / "recordings").rmdir()
    project.path("web/svg.py").unlink()
    assert [f"{SRC}/web/svg.py has changed" in problem for problem in project.problems()] == [True]


def test_what_no_cell_used_makes_nothing_stale(project):
    project.edit("notebook/lab.py", "import", "changed = 1\nimport")
    (project.path("calc") / "new.py").write_text("changed = 1\n")
    (project.root / "book" / "02-other.md").write_text("# Other\n")
    assert project.problems() == []


def test_a_changed_cell_is_named(project):
    project.edit("book/01-tiny.md", "6 * 7", "6 * 8")
    (problem,) = project.problems()
    assert "code cell 2 (line 27: `print(6 * 8)`) is not the one that was executed; run `make notebooks`" in problem


def test_an_added_cell_is_named(project):
    project.chapter.write_text(project.chapter.read_text() + "\n```{code-cell} python3\nprint('new')\n```\n")
    (problem,) = project.problems()
    assert "code cell 3" in problem and "print('new')" in problem


def test_a_missing_twin_is_said(project):
    project.twin.unlink()
    (problem,) = project.problems()
    assert "has no executed twin" in problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Tiny", "# Tiny, told better"),
        ("print(6 * 7)", "print(\n    6 * 7  # the answer\n)"),
    ],
)
def test_words_comments_and_layout_reach_the_twin_without_executing(project, old, new):
    project.edit("book/01-tiny.md", old, new)
    assert project.problems() == []
    assert execute.write(execute.with_prose(project.chapter), project.twin)
    twin = nbformat.read(project.twin, 4)
    assert new in [twin.cells[0].source, twin.cells[2].source]
    assert twin.cells[2].outputs[0].text == "42\n" and project.problems() == []
    assert not execute.write(execute.with_prose(project.chapter), project.twin)
    project.edit("book/01-tiny.md", "6 * 7", "6 * 8")
    with pytest.raises(execute.ChapterError, match="its code is not what was executed"):
        execute.with_prose(project.chapter)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1", "x  =  1  # one", True),
        ("def f():\n    'What it does.'\n    return 1", "def f(): return (1)", True),
        ("f(a, b)", "f(\n    a,\n    b,\n)", True),
        ("'a' 'b'", '"ab"', True),
        ("x = 'a'", "x = 'b'", False),
        ("x = 1", "x = 1.0", False),
        ("x = True", "x = 1", False),
        ("x = None", "x = ''", False),
        ("f(x)", "f(x);", False),
        ("{**a}", "{a: a}", False),
        ("x = [1]", "x = (1,)", False),
        ("%time x", "%timeit x", False),
        ("%%gpu memory=14\nx", "%%gpu memory=16\nx", False),
    ],
)
def test_the_meaning_of_a_cell(one, other, same):
    assert (stamp.cell_meaning(one, []) == stamp.cell_meaning(other, [])) == same


def test_a_tag_is_part_of_a_cells_meaning():
    assert stamp.cell_meaning("x", ["slow"]) != stamp.cell_meaning("x", [])


def test_magics_are_told_from_operators():
    assert as_python("ok = (\n    1\n    != 2\n)") == "ok = (\n    1\n    != 2\n)"
    assert as_python("x = (5\n% 7)") == "x = (5\n% 7)"
    assert as_python("try:\n    %magic\nexcept E:\n    !ls 'a") == "try:\n    pass\nexcept E:\n    pass"
    assert as_python("%%gpu name=x\n\n\nx = 1") == "pass\n\n\nx = 1", "line for line"
    assert magics("%%gpu name=x\nx = 7\n% 7") == ["%%gpu name=x", "% 7"]


def test_a_pin_makes_stale_only_what_imports_it_and_only_if_we_ask_for_it_ourselves(project):
    made = stamp.read(project.chapter)["distributions"]
    assert {"pyyaml", "ipykernel", "tornado"} <= set(made) and "peft" not in made
    pinned = stamp.pins(project.root)

    def upgrade(name):
        project.edit("requirements.txt", f"{name}=={pinned[name]}", f"{name}==99.0")

    upgrade("peft")  # ours, not imported
    upgrade("tornado")  # imported, asked for by others alone
    assert project.problems() == []
    said = stamp.reported(project.chapter, project.root)
    assert said == f"01-tiny: executed with other versions of tornado {pinned['tornado']} (now 99.0)"
    upgrade("pyyaml")
    (problem,) = project.problems()
    assert f"executed with pyyaml {pinned['pyyaml']}, now pinned to 99.0" in problem


# The course's own twins.


@pytest.fixture
def course(tmp_path):
    """A copy of all that the course's stamps are about; call it with an edit to learn which chapters that makes stale."""
    for folder in ("book", "notebooks", "src", "deploy"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in stamp.SETUP:
        shutil.copy(ROOT / name, tmp_path / name)

    def stale(name, old, new):
        path = tmp_path / SRC / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        found = {chapter.name[:2] for chapter in chapters(tmp_path) if stamp.problems(chapter, tmp_path)}
        path.write_text(text)
        return found

    return stale


def test_a_stores_engine_makes_chapter_4_stale_and_no_other(course):
    assert course("stores/postgres.py", "def ", "changed = 1\n\n\ndef ") == {"04"}


def test_a_cards_price_makes_exactly_the_chapters_stale_that_read_it(course):
    prices = json.loads((ROOT / SRC / "calc" / "data" / "prices.json").read_text())
    assert prices
    readers = {
        chapter.name[:2] for chapter in chapters() if f"{SRC}/calc/data/prices.json" in stamp.read(chapter)["files"]
    }
    asks = {chapter.name[:2] for chapter in chapters() if "tables.price(" in chapter.read_text()}
    assert asks <= readers and readers
    assert course("calc/data/prices.json", '"usd', '"changed_usd') == readers


def test_comments_of_the_course_make_nothing_stale(course):
    for name in ("notebook/lab.py", "models.py", "calc/tables.py", "engine/server.py", "rag/service.py"):
        assert course(name, '"""', '# Changed.\n\n"""') == set(), name
