"""Questions and predictions in the built pages, by keyboard alone, in a real Chromium."""

import json
import re

import pytest
from checks.source import ROOT

from llminfra.quiz import bank

pytestmark = pytest.mark.heavy

FIRST = "book/01-introduction-llm-infrastructure.html"
CHAPTERS = [
    FIRST,
    "book/02-vllm-deployment.html",
    "book/03-rag-systems.html",
    "book/04-vector-databases.html",
]
QUESTIONS = {one.id: one for one in bank.questions()}


@pytest.fixture
def page(chromium):
    """A page of its own, which fails the test if a script on it fails."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    failed = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    yield page
    context.close()
    assert not failed


def press_until(page, locator, key="Tab", limit=60):
    """Press a key until an element has the focus."""
    for _ in range(limit):
        if locator.evaluate("node => node === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{key} does not reach {locator}")


def begin_at(page, locator):
    """Put the keyboard just before an element, as a reader who has tabbed there."""
    locator.evaluate(
        "node => { const at = document.createElement('span'); at.tabIndex = -1; node.before(at); at.focus(); }"
    )


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_prediction_folds_its_answer_and_finds_it(site, page, name):
    page.goto(f"{site}/{name}")
    boxes = page.locator(".predict")
    page.locator(".predict form").first.wait_for()
    assert boxes.count() >= 5
    for number in range(boxes.count()):
        box = boxes.nth(number)
        output = box.locator(
            "xpath=following-sibling::*[contains(@class, 'cell')][1]//*[contains(@class, 'cell_output')]"
        ).first
        assert not output.is_visible()
        begin_at(page, box)
        press_until(page, box.locator("input").first)
        if box.locator("input[type=radio]").count():
            page.keyboard.press("Space")
        else:
            page.keyboard.type("12")
        page.keyboard.press("Enter")
        said = box.locator(".predict-status").inner_text()
        assert output.is_visible() and said.startswith("You said") and re.search(r"it is|It is|so it is", said), said
        assert f"of {number + 1} predictions" in said and "NaN" not in said
        assert box.locator(".predict-status").evaluate("node => node === document.activeElement")


def test_a_prediction_is_kept_and_may_be_declined(site, page):
    page.goto(f"{site}/{FIRST}")
    box = page.locator(".predict").first
    box.locator("input").fill("8")
    page.keyboard.press("Enter")
    said = box.locator(".predict-status").inner_text()
    assert said.startswith("You said 8; it is 8 pieces: right, within 5 %.")
    second = page.locator(".predict").nth(1)
    second.get_by_role("button", name="Show it").focus()
    page.keyboard.press("Enter")
    assert second.locator(".predict-status").inner_text().startswith("Not predicted.")
    page.reload()
    page.locator(".predict form").first.wait_for()
    assert box.locator(".predict-status").inner_text() == said and not box.locator("form").count()
    assert not page.locator(".predict").nth(1).locator("form").count()
    assert page.locator(".predict").nth(2).locator("form").count() == 1


def test_without_scripts_all_is_open(site, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/{FIRST}")
    assert all(one.is_visible() for one in page.locator(".foretold").all())
    item = page.locator(".quiz-item").first
    assert item.locator(".quiz-stem").is_visible() and item.locator(".quiz-options li").first.is_visible()
    assert item.locator("form").count() == 0 and item.locator("details").count() == 1
    page.goto(f"{site}/book/quiz.html")
    assert page.locator(".quiz-item").count() == len(QUESTIONS)
    context.close()


def answer(page, item, right):
    """Answer a question by keyboard, and return the feedback."""
    one = QUESTIONS[item.get_attribute("data-id")]
    if one.parsons:
        in_order(page, item, one.parsons.lines if right else one.parsons.lines[::-1], one.parsons.distractors)
    else:
        wanted = next(option for option in one.options if option.right == right)
        plain = wanted.text.replace("`", "")
        label = next(label for label in item.locator("label").all() if label.inner_text().strip() == plain)
        radio = label.locator("input")
        begin_at(page, item)
        press_until(page, item.locator("input").first)
        page.keyboard.press("Space")
        press_until(page, radio, "ArrowDown")
    button = item.get_by_role("button", name="Check")
    press_until(page, button)
    page.keyboard.press("Enter")
    return item.locator(".quiz-status").inner_text()


def in_order(page, item, lines, out):
    """Leave lines out and move the others, each by its own buttons."""
    for line in out:
        item.get_by_role("button", name=f"Leave out: {line}", exact=True).focus()
        page.keyboard.press("Enter")
    for line in lines:
        button = item.get_by_role("button", name=f"Down: {line}", exact=True)
        button.focus()
        for _ in range(20):
            page.keyboard.press("Enter")


def test_a_module_quiz_scores_by_objective_and_asks_again_what_was_missed(site, page):
    page.goto(f"{site}/book/quiz.html")
    box = page.locator('.quiz-set[data-set="module-2"]')
    box.locator("form").first.wait_for()
    items = [
        box.locator(f'[data-id="{one.id}"]') for one in QUESTIONS.values() if one.chapter == 2 and one.use == "module"
    ]
    for number, item in enumerate(items):
        said = answer(page, item, right=number != 1)
        one = QUESTIONS[item.get_attribute("data-id")]
        because = one.right.because if one.options else one.parsons.because
        assert (because.replace("`", "") in said) == (number != 1), said
    score = box.locator(".quiz-score").inner_text()
    assert score.startswith(f"{len(items) - 1} of {len(items)} right. By objective:") and "P1 0 of 1" in score
    button = box.get_by_role("button", name="Try again what was missed")
    button.focus()
    page.keyboard.press("Enter")
    answer(page, items[1], right=True)
    assert box.locator(".quiz-score").inner_text().startswith(f"{len(items)} of {len(items)} right")


def test_a_diagnostic_says_what_may_be_skipped(site, page):
    page.goto(f"{site}/book/quiz.html")
    box = page.locator('.quiz-set[data-set="check-1"]')
    box.locator("form").first.wait_for()
    for one in QUESTIONS.values():
        if one.chapter == 1 and one.use == "check":
            answer(page, box.locator(f'[data-id="{one.id}"]'), right=one.id != "kv-bytes-per-token")
    said = box.locator(".quiz-score")
    assert "Read: the cache to the byte." in said.inner_text() and "arithmetic and bytes" in said.inner_text()
    link = said.get_by_role("link", name="the cache to the byte")
    assert link.get_attribute("href").endswith("#the-cache-to-the-byte")


def test_what_was_missed_returns_after_1_7_and_21_days(site, page):
    page.clock.install(time="2026-11-27T08:00:00")
    for days, due in ((0, 0), (0, 0), (1, 1), (1, 0), (6, 1), (1, 0), (20, 1), (40, 0)):
        page.clock.set_fixed_time(f"{day(days)}T08:00:01")
        page.goto(f"{site}/book/quiz.html")
        desk = page.locator(".quiz-desk")
        desk.get_by_role("button", name="Save my answers").wait_for()
        said = desk.locator(".quiz-status").inner_text()
        assert said.startswith("1 missed before is due" if due else "Nothing is due"), (days, said)
        if due or (days == 0 and not page.evaluate("localStorage.getItem('llminfra-quiz')")):
            item = page.locator('.quiz-set [data-id="equal-requests"]')
            answer(page, item, right=bool(due))


CALENDAR = {"now": 27}


def day(after):
    """The date so many days after the last one that was asked for."""
    from datetime import date, timedelta

    CALENDAR["now"] += after
    return (date(2026, 11, 1) + timedelta(days=CALENDAR["now"] - 1)).isoformat()


def test_answers_are_saved_to_a_file_and_read_from_one(site, page, chromium, tmp_path):
    page.goto(f"{site}/{FIRST}")
    item = page.locator(".quiz-item").first
    item.locator("form").wait_for()
    answer(page, item, right=False)
    page.goto(f"{site}/book/quiz.html")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    download.value.save_as(tmp_path / "answers.json")
    saved = json.loads((tmp_path / "answers.json").read_text())
    assert [one["right"] for one in saved.values()] == [False]
    other = chromium.new_context().new_page()
    other.goto(f"{site}/book/quiz.html")
    chooser = other.locator('.quiz-desk input[type="file"]')
    (tmp_path / "bad.json").write_text('{"a": 1}')
    for file, says in (("bad.json", "holds no answers"), ("answers.json", "1 answers were read")):
        chooser.set_input_files(tmp_path / file)
        other.locator(".quiz-desk .quiz-status", has_text=says).wait_for(timeout=5000)
    assert json.loads(other.evaluate("localStorage.getItem('llminfra-quiz')")) == saved
    other.get_by_role("button", name="Forget my answers").click()
    assert other.evaluate("localStorage.getItem('llminfra-quiz')") is None
    other.context.close()


def test_the_modules_are_small():
    sizes = {name: (ROOT / "book/_static" / name).stat().st_size for name in ("predict.mjs", "quiz.mjs")}
    assert sizes["predict.mjs"] <= 6_000 and sizes["quiz.mjs"] <= 9_000
