"""What pages say of the course itself is what its files say; a page that says otherwise is refused, with file, line and reason."""

import re
import shutil

import pytest
from checks import state
from checks.source import ROOT


def test_what_pages_say_of_the_course_is_true(hold, covered):
    hold(state.problems())
    course = state.of_files()
    covered(
        "state", f"{len(course.written)} of {course.chapters} chapters written, {course.exercises} exercises planned"
    )


FILES = (
    "_toc.yml",
    "README.md",
    "CONTRIBUTING.md",
    *(f"book/{name}.md" for name in ("index", "course-map", "prerequisites")),
)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The pages that speak of the course, its chapters, and the names of its widgets."""
    root = tmp_path_factory.mktemp("course")
    for path in [
        *(ROOT / name for name in FILES),
        *state.chapters(ROOT),
        *(ROOT / "src").rglob("widget_*.py"),
        *ROOT.glob("exercises/*/README.md"),
    ]:
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


@pytest.fixture
def change(copied):
    """Return the problems of the course with a file changed: what matches an expression replaced."""
    before = {}

    def change(name, pattern, put):
        path = copied / name
        before[path] = text = path.read_text(encoding="utf-8")
        changed, count = re.subn(pattern, put, text, count=1)
        assert count, f"{name} has no {pattern}"
        path.write_text(changed, encoding="utf-8")
        return state.problems(copied), text[: re.search(pattern, text).start()].count("\n") + 1

    yield change
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "pattern", "put", "words"),
    [
        ("book/index.md", r"\w+ of eight are", "Seven of eight are", "Seven of eight are complete.*files it is . of 8"),
        ("book/index.md", r"(\w+) of eight are", r"\1 of nine are", "of nine are complete"),
        ("README.md", r"Chapters 1 to \d", "Chapters 1 to 7", "Chapters 1 to 7 are complete"),
        ("README.md", r"The other \w+", "The other seven", "The other seven.* planned"),
        ("README.md", "Eight chapters", "Nine chapters", "Nine chapters.*it is 8"),
        ("book/course-map.md", "## Five weeks", "## Six weeks", "Six weeks"),
        ("book/course-map.md", "eight exercises", "12 exercises", "12 exercises.*it is 8"),
        ("book/index.md", r"checklist of \w+ items", "checklist of ten items", "checklist of ten items.*it is 9"),
        ("book/prerequisites.md", "Nine things", "Ten things", "Ten things to know"),
        ("book/course-map.md", r"(\| 1 \| .*\| )written", r"\1planned", "chapter 1 is written"),
        ("book/course-map.md", r"(\| 8 \| .*\| )planned", r"\1written", "chapter 8 is no notebook"),
        ("book/course-map.md", r"\[RAG systems\]", "[Retrieval]", "chapter 3 is written: say .\\[RAG systems"),
        ("CONTRIBUTING.md", r"`roofline` and `cost`", "and `roofline`", "the kinds of widgets are cost, "),
    ],
)
def test_a_statement_that_the_files_contradict_is_refused_on_its_line(change, name, pattern, put, words):
    found, line = change(name, pattern, put)
    assert [(p.path, p.line) for p in found if re.search(words, p.reason)] == [(name, line)], [str(p) for p in found]


@pytest.mark.parametrize(
    ("name", "pattern", "words"),
    [
        ("book/index.md", r"- \[Chapter 2.*\n", "not 02-vllm-deployment.md"),
        ("README.md", r"\*Vector databases\*", r"not \*Vector databases\*"),
        ("_toc.yml", r"      - file: book/03-rag-systems\n", "lacks book/03-rag-systems"),
        ("book/course-map.md", r"\[Build a RAG system\]\(.*\)", "does not link exercises/02-rag"),
        ("book/course-map.md", r"\| 2 \| \[vLLM.*\n", "has no row for 02-vllm-deployment"),
    ],
)
def test_what_a_page_must_name_is_missed(change, name, pattern, words):
    found, _ = change(name, pattern, "")
    assert any(p.path == name and re.search(words, p.reason) for p in found), [str(p) for p in found]


def test_a_chapter_that_is_written_makes_what_the_pages_say_untrue(copied):
    """The planned chapter 5 appears: the map, the index, the README and the contents say so, or are named."""
    chapter = copied / "book" / "05-fine-tuning.md"
    text = state.chapters(ROOT)[0].read_text(encoding="utf-8")
    chapter.write_text(re.sub(r"(?m)^# .*$", "# Fine-tuning infrastructure", text, count=1), encoding="utf-8")
    try:
        found = state.problems(copied)
    finally:
        chapter.unlink()
    assert {p.path for p in found} == {"book/course-map.md", "book/index.md", "README.md", "_toc.yml"}
