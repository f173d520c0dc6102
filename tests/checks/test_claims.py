"""Each claim of a chapter can fail; what cannot is refused, with file, line and reason."""

import ast
import re

import pytest
from checks import claims, mutation

from llminfra.notebook.chapter import as_python, code_cells, with_code

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("chapter", with_code(), ids=lambda path: path.stem)
def test_every_claim_of_a_chapter_can_fail(chapter, hold, covered):
    hold(claims.problems(chapter))
    trees = [ast.parse(as_python(cell.source)) for cell in code_cells(chapter)]
    measured = sum("measured" in cell.tags for cell in code_cells(chapter))
    count = sum(1 for tree in trees for _ in claims.check_calls(tree))
    covered("claims", f"{chapter.stem}: {count} checks that can fail, {measured} measured cells, each with its check")


def condition(source):
    """Return why a check of this condition cannot fail, in a chapter that binds `ok`, `limit` to literals only."""
    (call,) = claims.check_calls(ast.parse(f"check('claim', {source})"))
    return claims.idle(call, {"ok", "limit"})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("True", "literal True"),
        ("1", "literal 1"),
        ("3 > 2", "nothing measured"),
        ("ok", "nothing measured"),
        ("limit > 3 and ok", "nothing measured"),
        ("rate > 3 or True", "always true: True"),
        ("not False", "nothing measured"),
        ("rate == rate", "compared with itself"),
        ("rates[1] <= rates[1]", "compared with itself"),
        ("len(found) >= 0", "never below 0"),
        ("0 <= abs(low - high)", "never below 0"),
        ("(rate > 3, 'why')", r"did you mean all"),
        ("[r > 3 for r in rates] or [rate]", r"did you mean all"),
        ("(r > 3 for r in rates)", "generator"),
        ("lambda: rate > 3", "function"),
        ("f'{rate} > 3'", "text"),
        ("bool(rate > 3 or 1)", "always true"),
        ("isinstance(rate, object)", "object"),
    ],
)
def test_a_condition_that_cannot_be_false_is_refused(source, words):
    assert re.search(words, condition(source)), condition(source)


@pytest.mark.parametrize(
    "source",
    [
        "rate > 3",
        "rate > limit",
        "all(r > 3 for r in rates)",
        "not missing",
        "len(found) > 0",
        "0 <= size - 4 * predicted < 100",
        "memory.kv_bytes(8) == 1024",
        "[e for e in events] == [1] * 6 + [0]",
        "'Paris' in answer",
    ],
)
def test_a_condition_that_can_be_false_is_not(source):
    assert condition(source) == ""


CHAPTER = """---
jupytext:
  text_representation: {{extension: .md, format_name: myst}}
---
# Title

```{{code-cell}} ipython3
from llminfra.notebook.lab import check
rate = sum([1, 2])
```

```{{code-cell}} ipython3
{}
```
"""


@pytest.fixture
def chapter(tmp_path):
    """Write a chapter of two cells, the second one given, whose code begins on line 13."""

    def chapter(code):
        path = tmp_path / "book" / "01-bad.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(CHAPTER.format(code))
        return path

    return chapter


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("check('three', True)", 13, "literal True"),
        ("wanted = 3\ncheck('three', wanted == 3)", 14, "nothing measured"),
        ("check('three')", 13, "needs a claim and a condition"),
        ("check('three', rate == 3, again=sum)", 13, "as a function"),
        ("check('three', lambda: True, again=sum)", 13, "literal True"),
        ("try:\n    check('three', rate == 3)\nexcept Exception:\n    pass", 14, "hides its failure"),
        (":tags: [measured, nbval-ignore-output]\nprint(rate)", 12, "let the next cell `check`"),
    ],
)
def test_a_bad_claim_is_refused_with_file_and_line(chapter, tmp_path, code, line, words):
    (problem,) = claims.problems(chapter(code), tmp_path)
    assert (problem.path, problem.line) == ("book/01-bad.md", line) and words in problem.reason


def test_a_good_claim_passes(chapter, tmp_path):
    assert claims.problems(chapter("limit = 4\ncheck('less than four', rate < limit)"), tmp_path) == []
    assert claims.problems(chapter("check('less than four', lambda: rate < 4, again=sum)"), tmp_path) == []


# Mutation: a run with the condition turned round must fail by that claim, and by nothing else.


def survivors(chapter, code):
    path = chapter(code)
    return mutation.survivors(path, mutation.mutants(path))


def test_a_check_that_guards_its_claim_fails_when_turned_round(chapter):
    assert survivors(chapter, "check('three', rate == 3)\nlast = rate") == []
    assert survivors(chapter, "check('three', lambda: rate == 3, again=dict)\nlast = rate") == []


@pytest.mark.parametrize(
    "code",
    [
        "if rate > 5:\n    check('three', rate == 3)",
        "for _ in range(0):\n    check('three', rate == 3)",
        "check = print\ncheck('three', rate == 3)",
    ],
)
def test_a_check_that_guards_nothing_is_found(chapter, code):
    (problem,) = survivors(chapter, code)
    assert "01-bad.md: code cell 2: with its condition turned round" in problem


def test_a_cell_that_fails_by_itself_is_told_apart(chapter):
    problems = survivors(chapter, "print(no_such_name)\ncheck('three', rate == 3)")
    assert len(problems) == 1 and "no_such_name" in problems[0]
