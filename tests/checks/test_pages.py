"""Pages that are gathered or computed from sources say what their sources say: troubleshooting, objectives, prices, roadmap."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from checks import links
from checks.source import ROOT

from llminfra.calc import tables
from llminfra.notebook import objectives
from llminfra.notebook.chapter import chapters

pytestmark = pytest.mark.heavy


def soup(name):
    """The article of a built page."""
    file = links.SITE / "book" / f"{name}.html"
    assert file.is_file(), "nothing is built: run make book"
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser").select_one("article")


def words(text):
    return re.sub(r"\W+", " ", text).strip()


@pytest.fixture
def extension(monkeypatch):
    """Import one of the site's extensions by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    before = set(sys.modules)
    yield __import__
    for name in set(sys.modules) - before:
        if str(ROOT / "book" / "_ext") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_troubleshooting_index_has_every_row_of_every_chapter(covered):
    page = soup("troubleshooting")
    shown = [words(row.get_text(" ")) for row in page.select("tbody tr")]
    count = 0
    for chapter in chapters():
        built = BeautifulSoup((links.SITE / "book" / f"{chapter.stem}.html").read_text(encoding="utf-8"), "html.parser")
        rows = [words(row.get_text(" ")) for row in built.select("#troubleshooting tbody tr")]
        assert len(rows) >= 8 and set(rows) <= set(shown), chapter.name
        assert page.select_one(f'a[href="{chapter.stem}.html#troubleshooting"]')
        count += len(rows)
    covered("pages", f"the troubleshooting index: {count} rows from {len(chapters())} chapters")


def test_a_chapter_without_a_table_is_noticed(extension):
    table = extension("troubleshooting").table
    text = chapters()[0].read_text(encoding="utf-8")
    assert len(table(text)) >= 8
    assert table(text.replace("## Troubleshooting", "## What goes wrong")) == []
    assert table("# A\n\n## Troubleshooting\n\nNothing.\n\n## Next\n\n| a |\n| --- |\n| b |\n") == []


def test_the_objectives_are_those_of_the_files(covered):
    found, problems = objectives.gathered()
    assert problems == []
    rows = soup("course-map").select("#objectives tbody tr")
    assert [row.td.get_text() for row in rows] == [one.id for one in found] and len(found) == 22
    for chapter in chapters():
        course = yaml.safe_load(chapter.read_text(encoding="utf-8").split("---")[1])["course"]
        taught = {
            row.td.get_text() for row in rows if row.select(f'td:nth-of-type(3) a[href="{chapter.name[:-3]}.html"]')
        }
        assert taught == set(course["objectives"]), chapter.name
    covered("pages", f"{len(found)} objectives, {sum(bool(one.taught) for one in found)} of them taught so far")


@pytest.fixture
def course(tmp_path):
    """A small course, and what contradicts in it."""
    (tmp_path / "book").mkdir()
    chapter = "---\ncourse:\n  number: 1\n  objectives: [{}]\n---\n# One\n\n```{{code-cell}} python3\n1\n```\n"

    def gathered(planned, taught="F1", practised=None, asked=None):
        (tmp_path / "book" / "objectives.yml").write_text(f"- {{id: F1, can: think, planned: {planned}}}\n")
        (tmp_path / "book" / "01-one.md").write_text(chapter.format(taught))
        if practised:
            (tmp_path / "exercises" / "01-a").mkdir(parents=True)
            (tmp_path / "exercises" / "01-a" / "exercise.yml").write_text(f"objectives: [{practised}]\n")
        if asked:
            (tmp_path / "quiz").mkdir()
            (tmp_path / "quiz" / "questions.yml").write_text(f"- {{id: q, objective: {asked}}}\n")
        return objectives.gathered(tmp_path)

    return gathered


def test_an_objective_is_gathered_from_all_that_serve_it(course):
    (one,), problems = course("{chapters: [1, 2], exercises: [1, 2]}", practised="F1", asked="F1")
    assert problems == []
    assert (one.taught, one.practised, one.asked) == ([1], [1], 1)
    assert (one.planned_chapters, one.planned_exercises) == ([2], [2]), "what is there is not planned any more"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"taught": "F1, F2"}, r"01-one\.md names the objective F2, which book/objectives\.yml lacks"),
        ({"practised": "F3"}, "exercises/01-a names the objective F3"),
        ({"asked": "F4"}, "question q names the objective F4"),
        ({"taught": ""}, "F1 is taught in no chapter"),
        ({"planned": "{chapters: [], exercises: []}"}, "F1 is practised in no exercise"),
    ],
)
def test_what_contradicts_is_told(course, made, says):
    _, problems = course(made.pop("planned", "{chapters: [], exercises: [2]}"), **made)
    assert any(re.search(says, problem) for problem in problems), problems


def test_the_prices_are_those_of_the_file_with_their_dates(extension):
    page = soup("setup")
    table = next(one for one in page.select("table") if "Google Cloud" in one.thead.get_text())
    text = table.get_text(" ")
    prices = extension("prices")
    for gpu in prices.GPUS:
        for offer in tables.prices(gpu):
            if offer["provider"] in prices.PROVIDERS and offer == next(
                one for one in tables.prices(gpu) if one["provider"] == offer["provider"]
            ):
                assert f"${offer['usd_per_gpu_hour']:.2f}" in text and offer["instance"] in text
                assert offer["read"] in page.get_text() and page.select(f'a[href="{offer["url"]}"]')
    assert prices.cell({"usd_per_gpu_hour": 1, "gpus_per_instance": 8, "instance": "x", "partial": "", "unverified": True}) == (
        "\\$1.00 \\*<br>x, only by 8"
    )  # fmt: skip


def test_the_roadmap_is_five_weeks_of_five_days_within_the_hours_of_the_course(covered):
    weeks = soup("roadmap").select("table")
    hours = [[int(row.select("td")[2].get_text()) for row in week.select("tbody tr")] for week in weeks]
    assert [len(week) for week in hours] == [5] * 5
    total = sum(map(sum, hours))
    least, most = map(int, re.search(r"takes (\d+) to (\d+) hours", soup("course-map").get_text()).groups())
    assert least <= total <= most and f"about {total} hours" in soup("roadmap").get_text()
    exercises = sum(week[4] for week in hours[:4]) + sum(hours[4][:3])
    assert f"the exercises take {exercises}" in soup("roadmap").get_text()
    for number, chapter in enumerate(chapters()):
        course = yaml.safe_load(chapter.read_text(encoding="utf-8").split("---")[1])["course"]
        week, day = number // 2, number % 2 * 2
        assert weeks[week].select(f'tr:nth-of-type({day + 1}) a[href^="{chapter.stem}.html"]'), chapter.name
        planned = 60 * sum(hours[week][day : day + 2])
        assert planned >= course["reading_minutes"] + course["lab_minutes"], chapter.name
    covered("pages", f"the roadmap: {total} hours in five weeks of five days, {exercises} of them exercises")


def test_every_resource_says_why_and_when_it_was_checked():
    rows = soup("resources").select("tbody tr")
    assert len(rows) >= 35
    for row in rows:
        what, why, checked = (cell.get_text().strip() for cell in row.select("td"))
        assert row.select("td a[href]") and len(why) > 20, what
        assert re.fullmatch(r"2\d{3}-\d\d-\d\d|not checked", checked), what


def test_what_the_tutor_is_told_to_run_exists():
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)|&& make ([a-z-]+)", text))
    assert len(targets) >= 5
    for target in ("".join(pair) for pair in targets):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"`((?:src|book|deploy|tests)/[\w./-]+)`", text):
        assert path.startswith("book/NN") or (ROOT / path).exists(), path
    for said in ("Ask first", "Don't write or complete code in an exercise's folder", "hints"):
        assert said in text


def test_the_citation_agrees_with_the_package():
    import tomllib

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == project["version"]
    assert all(licence in project["license"]["text"] for licence in cited["license"])
    assert cited["title"].startswith(yaml.safe_load(Path(ROOT / "_config.yml").read_text())["title"])
