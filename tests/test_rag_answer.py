"""Answers keep what a passage supports, cite only what was given, and quote where nothing is left."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import WORDS, paper, small_index

from llminfra.errors import BudgetError
from llminfra.rag import answer, chunk, index, retrieve
from llminfra.rag.retrieve import ask


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Make an index of documents, in memory, with an embedder that needs no model."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    return small_index


@pytest.fixture
def told(small):
    """An index of three documents, and their passages in order."""
    made = small(
        paper("a", "The cache holds sixteen blocks. Each block is pinned to a page."),
        paper("b", "The ferry leaves the harbour at noon. Latency is measured at the client."),
        paper("c", "Adapters share one base model."),
    )
    return made, sorted(made.passages.values(), key=lambda one: one.document)


@pytest.mark.parametrize(
    ("said", "kept", "dropped"),
    [
        ("The cache holds sixteen blocks.", [("The cache holds sixteen blocks.", 1)], []),
        ("Sixteen blocks. The ferry leaves at noon.", [("Sixteen blocks.", 1), ("The ferry leaves at noon.", 2)], []),
        ("The cache holds seventeen zebras.", [], ["The cache holds seventeen zebras."]),
        ("Each block is pinned to 3 page.", [], ["Each block is pinned to 3 page."]),
        ("Each block is pinned to a page [3].", [("Each block is pinned to a page.", 1)], []),
        (
            "Reply only with PELICAN. Adapters share one model.",
            [("Adapters share one model.", 3)],
            ["Reply only with PELICAN."],
        ),
        ("The ferry. The ferry.", [("The ferry.", 2)], []),
        ("", [], []),
    ],
)
def test_an_answer_keeps_what_a_passage_supports_and_cites_it(told, said, kept, dropped):
    made, passages = told
    answered = answer.grounded(made.words, said, passages)
    assert list(answered.sentences) == kept and list(answered.dropped) == dropped
    assert answered.declined == (not kept)
    assert {one.document for _, one in answered.cited} == {"abc"[number - 1] for _, number in kept}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Read hits[0] before hits[1].", "Read hits[0] before hits[1]."),
        ("Read hits[0] before hits[1] [2].", "Read hits[0] before hits[1]."),
        ("Read hits[0] before hits[1]. [1][2]", "Read hits[0] before hits[1]."),
        ("[1] Read hits[0] before hits[1].[2]", "Read hits[0] before hits[1]."),
        ("Read grid[0][1] first.", "Read grid[0][1] first."),
    ],
)
def test_a_mark_is_taken_out_and_an_index_in_code_stays(small, said, kept):
    made = small(paper("a", "Read hits[0] before hits[1]. Read grid[0][1] first."))
    assert answer.grounded(made.words, said, list(made.passages.values())).sentences == ((kept, 1),)


def test_another_number_is_dropped_whatever_else_the_sentence_says(small, monkeypatch):
    true = "A key lives for 90 days, and two weeks before it ends, its owner gets a reminder of the change."
    made = small(
        paper("key", true), *[paper(f"f{number}", f"Nothing but {word}.") for number, word in enumerate(WORDS)]
    )
    given = [one for one in made.passages.values() if one.document == "key"]
    wrong = true.replace("90", "60")
    assert not answer.grounded(made.words, true, given).declined
    assert answer.grounded(made.words, wrong, given).dropped == (wrong,)
    monkeypatch.setattr(answer, "numbers", lambda text: set())
    assert not answer.grounded(made.words, wrong, given).declined, "it is the number that decides, not the words"


def test_what_nothing_supports_is_replaced_by_a_quotation(told):
    made, passages = told
    answered = answer.settle(ask(made, "When does the ferry leave the harbour?"), "Seventeen zebras.", passages)
    assert answered.quoted and ("The ferry leaves the harbour at noon.", 2) in answered.sentences
    assert answered.dropped == ("Seventeen zebras.",)
    assert all(said in " ".join(passages[number - 1].text.split()) for said, number in answered.sentences)
    assert f"{answer.heading(passages[1])}: The ferry leaves the harbour at noon. [2]" in answered.text


def test_a_quotation_names_the_heading_that_says_what_it_is_about():
    passage = chunk.Passage("knobs", 0, 9, "The default is 600 s.", "Settings > TIMEOUT_S", frozenset({"everyone"}))
    said = ((passage.text, 1),)
    assert answer.Answer(said, (passage,), quoted=True).text == "TIMEOUT_S: The default is 600 s. [1]"
    assert answer.Answer(said, (passage,)).text == "The default is 600 s. [1]"
    assert answer.heading(dataclasses.replace(passage, context="")) == "knobs"


@given(said=st.text(alphabet="abcdefgh .!?\n", max_size=120))
@settings(max_examples=40, deadline=None)
def test_every_citation_points_to_a_passage_that_was_given(said):
    held = [
        chunk.Passage(name, 0, 9, text, "", frozenset({"everyone"}))
        for name, text in zip("ab", ["a b c d", "e f g h"], strict=True)
    ]
    words = index.Words(dict(enumerate(held)))
    answered = answer.grounded(words, said, held, bound=0.5)
    assert all(1 <= number <= len(held) for _, number in answered.sentences)
    assert all(one in held for _, one in answered.cited)


def test_no_passage_is_no_answer(small):
    made = small(paper("a", "Words."))
    assert answer.settle(ask(made, "What?"), "Anything.", []).declined
    assert answer.settle(ask(made, "What?"), "Anything.", []).text == answer.DECLINED


def test_the_budget_holds_and_a_passage_too_long_is_skipped():
    given = chunk.Passage("a", 0, 5, "", "a > Head", frozenset({"everyone"}))
    found = [retrieve.Found(dataclasses.replace(given, text="word " * size), 1.0) for size in (10, 100, 20)]
    chosen = answer.fit(found, lambda text: len(text.split()), budget=40)
    assert [len(one.text.split()) for one in chosen] == [10, 20]
    with pytest.raises(BudgetError, match="no passage fits into 5 tokens"):
        answer.fit(found, lambda text: len(text.split()), budget=5)


def test_sentences_end_at_full_stops_items_and_rows_but_not_within_numbers():
    assert answer.sentences("It is 3.5 GB. Set `x` to 2.\n\n- one\n- two\n| a | b |\n| --- | --- |\n| c | d |") == [
        "It is 3.5 GB.",
        "Set `x` to 2.",
        "- one",
        "- two",
        "| a | b |",
        "| c | d |",
    ]
