"""The question bank keeps its rules, each rule refuses what breaks it, and the exports can be read."""

import re
import sqlite3
import zipfile
from dataclasses import replace

import pytest
import yaml
from checks import quiz
from checks.source import ROOT

from llminfra import cli
from llminfra.errors import QuizError
from llminfra.notebook.chapter import with_code
from llminfra.quiz import bank, export

BANK = bank.load()
PLAIN = next(one for one in BANK if one.options and not one.numbers)
COUNTED = next(one for one in BANK if one.numbers)
VLLM, KUBERNETES = (
    next(one for one in BANK if one.parsons and one.parsons.parser == name) for name in ("vllm", "kubernetes")
)


def written():
    """The anchors of each written chapter, from its headings, and its objectives, from its front matter."""
    anchors, objectives = {}, {}
    for chapter in with_code():
        text = chapter.read_text(encoding="utf-8")
        course = yaml.safe_load(text.split("---")[1]).get("course")
        if course:
            prose = re.sub(r"(?ms)^```.*?^```", "", text)
            headings = re.findall(r"(?m)^#{2,} (.+)$", prose)
            anchors[course["number"]] = {re.sub(r"[^a-z0-9]+", "-", one.lower()).strip("-") for one in headings}
            objectives[course["number"]] = course["objectives"]
    return anchors, objectives


ANCHORS, OBJECTIVES = written()


def test_the_bank_keeps_its_rules(hold, covered):
    hold(quiz.problems(BANK, ANCHORS, OBJECTIVES))
    kinds = [one.kind for one in BANK]
    covered(
        "questions",
        f"{len(BANK)}, {sum(kind != 'recall' for kind in kinds)} apply or analyse, {sum(bool(one.numbers) for one in BANK)} computed",
    )


def with_option(one, place, **changes):
    options = list(one.options)
    options[place] = replace(options[place], **changes)
    return replace(one, options=tuple(options))


WRONG = next(place for place, option in enumerate(PLAIN.options) if not option.right)
COUNTED_WRONG = next(place for place, option in enumerate(COUNTED.options) if not option.right)


@pytest.mark.parametrize(
    ("one", "changed", "says"),
    [
        (PLAIN, with_option(PLAIN, WRONG, right=True), "2 of its options are right"),
        (PLAIN, replace(PLAIN, options=tuple(replace(o, right=False) for o in PLAIN.options)), "0 of its options are right"),
        (PLAIN, replace(PLAIN, options=PLAIN.options[:2]), "three or four are wanted"),
        (PLAIN, with_option(PLAIN, WRONG, text="All of the above"), "is no option"),
        (PLAIN, with_option(PLAIN, WRONG, text=PLAIN.right.text), "two options are"),
        (PLAIN, with_option(PLAIN, WRONG, because="Wrong."), "says no why"),
        (PLAIN, with_option(PLAIN, WRONG, because="Option B is the one that the section gives."), "by letter or number"),
        (PLAIN, replace(PLAIN, section="no-such-section"), "has no section 'no-such-section'"),
        (PLAIN, replace(PLAIN, section="shards-replicas-consistency"), "has no section"),
        (PLAIN, replace(PLAIN, source=""), "it has no source"),
        (PLAIN, replace(PLAIN, kind="guess"), "kind one of"),
        (COUNTED, with_option(COUNTED, COUNTED_WRONG, mistake=""), "names no mistake"),
        (COUNTED, with_option(COUNTED, COUNTED_WRONG, text=COUNTED.right.text), "two options are"),
        (PLAIN, replace(PLAIN, id=COUNTED.id), "two questions have the id"),
        (PLAIN, replace(PLAIN, stem=COUNTED.stem), "two questions have the stem"),
        (VLLM, replace(VLLM, parsons=replace(VLLM.parsons, distractors=("--enforce-eager",))), "accepts '--enforce-eager'"),
        (VLLM, replace(VLLM, parsons=replace(VLLM.parsons, lines=(*VLLM.parsons.lines, "--max-tokens 5"))), "refuses the right order"),
        (KUBERNETES, replace(KUBERNETES, parsons=replace(KUBERNETES.parsons, distractors=("  type: ClusterIP",))), "accepts"),
        (VLLM, replace(VLLM, parsons=replace(VLLM.parsons, parser="none")), "no parser is called"),
    ],
)  # fmt: skip
def test_a_planted_defect_is_refused(one, changed, says):
    planted = [changed if other is one else other for other in BANK]
    found = [said for said in quiz.problems(planted, ANCHORS, OBJECTIVES) if says in said]
    assert found and (changed.id in found[0] or changed.stem in found[0])


def longer(one):
    options = [replace(option, text=option.text + " and so on" * 20 * option.right) for option in one.options]
    return replace(one, options=tuple(options))


def right_first(one):
    return replace(one, options=tuple(sorted(one.options, key=lambda option: not option.right)))


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ([longer(one) for one in BANK], "the right option is the longest"),
        ([right_first(one) for one in BANK], "the right option is number 1 in"),
        ([one for one in BANK if one.objective != "S1"], "nothing is asked about objective S1"),
        ([one for one in BANK if one.chapter != 3][:40], "chapter 3 has 0 questions"),
        ([replace(one, kind="recall") for one in BANK], "ask to apply or to analyse"),
        ([replace(one, numbers={}) for one in BANK], "need a calculation"),
        ([replace(one, use="check") for one in BANK], "no question for module"),
    ],
)
def test_a_bank_out_of_balance_is_refused(planted, says):
    assert any(says in said for said in quiz.problems(planted, ANCHORS, OBJECTIVES))


def test_numbers_are_computed_and_what_cannot_be_is_named(tmp_path):
    file = tmp_path / "questions.yml"
    text = (ROOT / "quiz" / "questions.yml").read_text(encoding="utf-8")
    file.write_text(text.replace("memory.kv_bytes_per_token", "memory.kv_bytes_per_tokn", 1))
    with pytest.raises(QuizError, match=r"'kv-bytes-per-token'.*kv_bytes_per_tokn"):
        bank.load(file)
    file.write_text(text.replace("{right:,} bytes", "{wrong:,} bytes", 1))
    with pytest.raises(QuizError, match="KeyError"):
        bank.load(file)
    file.write_text(text.replace('"Qwen2.5-7B-Instruct", "bf16")', '"Llama-3-8B", "bf16")', 1))
    changed = next(one for one in bank.load(file) if one.id == COUNTED.id)
    assert changed.right.text == "131,072 bytes" != COUNTED.right.text


def test_variants_of_a_paper_differ_and_their_keys_are_right():
    sheets = [export.paper(BANK, variant) for variant in (1, 2)]
    assert sheets[0][0] != sheets[1][0] and sheets == [export.paper(BANK, variant) for variant in (1, 2)]
    for variant, (sheet, key) in enumerate(sheets, 1):
        asked = re.split(r"(?m)^\d+\. ", sheet)[1:]
        answers = re.findall(r"(?m)^\d+\. \*\*([a-d])\*\*", key)
        assert len(asked) == len(answers) == sum(bool(one.options) for one in BANK)
        for one, text, letter in zip(export.shuffled(BANK, variant), asked, answers, strict=True):
            assert f"{letter}) {one.right.text}" in text
        assert not any(one.right.because in sheet for one in BANK if one.options)


def test_gift_has_one_right_answer_and_feedback_for_each_option():
    blocks = export.gift(BANK).split("\n\n")
    assert len(blocks) == sum(bool(one.options) for one in BANK)
    for one, block in zip([one for one in BANK if one.options], blocks, strict=True):
        lines = block.splitlines()
        assert sum(line.startswith("=") for line in lines) == 1
        answers = [line for line in lines if line.startswith(("=", "~"))]
        assert len(answers) == len(one.options)
        assert all(len(re.findall(r"(?<!\\)#", line)) == 1 for line in answers)


def test_qti_is_a_package_with_every_question(tmp_path):
    file = tmp_path / "quiz.zip"
    file.write_bytes(export.qti(BANK, "Chapter 1"))
    with zipfile.ZipFile(file) as packed:
        text = "".join(packed.read(name).decode() for name in packed.namelist() if name.endswith(".xml"))
    assert "imsmanifest.xml" in packed.namelist()
    assert text.count("<item ") == sum(bool(one.options) for one in BANK)


def test_anki_has_a_note_for_every_question(tmp_path):
    export.anki(BANK, "All", tmp_path / "all.apkg")
    with zipfile.ZipFile(tmp_path / "all.apkg") as packed:
        packed.extract("collection.anki2", tmp_path)
    notes = sqlite3.connect(tmp_path / "collection.anki2").execute("SELECT flds FROM notes").fetchall()
    assert len(notes) == sum(bool(one.options) for one in BANK)
    assert any("57,344 bytes" in fields for (fields,) in notes)


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("paper", ["chapter-2-key-1.md", "chapter-2-key-2.md", "chapter-2-paper-1.md", "chapter-2-paper-2.md"]),
        ("gift", ["chapter-2.gift"]),
        ("qti", ["chapter-2.zip"]),
        ("anki", ["chapter-2.apkg"]),
    ],
)
def test_the_command_writes_files(form, files, tmp_path, capsys):
    assert cli.main(["quiz", form, "--chapter", "2", "--variants", "2", "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    assert "12 questions of chapter-2" in capsys.readouterr().out
    assert cli.main(["quiz", form, "--chapter", "7", "--out", str(tmp_path)]) == 2
