"""The index follows its documents, and a search finds only what its reader may read."""

import dataclasses
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import WORDS, hashing, paper, small_index

from llminfra import stores
from llminfra.errors import CorpusError
from llminfra.rag import answer, chunk, index, rerank, retrieve, rewrite
from llminfra.rag.corpus import Document
from llminfra.rag.judgments import labels, training
from llminfra.rag.retrieve import ask

pytestmark = pytest.mark.heavy


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Make an index of documents, in memory, with an embedder that needs no model."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    return small_index


# --- the index


def test_an_update_touches_only_what_changed(small):
    one, two, three = (
        paper(name, f"{name} is about {word} and nothing else.") for name, word in zip("abc", WORDS, strict=False)
    )
    made = small(one, two)
    assert made.update([one, two]) == index.Changes(0, 0, 2)
    assert made.update([one, paper("b", "b is about latency now."), three]) == index.Changes(2, 1, 1)
    assert {passage.document for passage in made.passages.values()} == {"a", "b", "c"} and made.store.count() == 3
    assert [one.passage.document for one in retrieve.lexical(ask(made, "latency"))] == ["b"]
    assert retrieve.lexical(ask(made, "block")) == []


def test_new_roles_alone_are_a_change(small):
    made = small(paper("a", "About the cache and its blocks."))
    assert made.update([paper("a", "About the cache and its blocks.", "hr")]) == index.Changes(1, 1, 0)
    assert retrieve.hybrid(ask(made, "cache")) == [] and retrieve.hybrid(ask(made, "cache", {"hr"}))


def test_an_update_that_broke_off_loses_nothing_and_the_next_finishes_it(small, monkeypatch):
    made = small(paper("a", "The cache of old."), paper("b", "Blocks stay as they are."))
    wanted = [paper("a", "The cache anew."), paper("b", "Blocks stay as they are."), paper("c", "Tokens come.")]

    def broken(ids):
        raise stores.StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(made.store, "delete", broken)
        with pytest.raises(stores.StoreError):
            made.update(wanted)
    assert retrieve.dense(ask(made, "cache"))[0].passage.text, "what was there is still found"
    again = index.Index(made.store, made.embedder)
    assert {passage.text for passage in again.passages.values()} >= {"The cache of old.", "The cache anew."}
    assert again.update(wanted) == index.Changes(0, 1, 3)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "would empty the index"),
        ([Document("a", "  \n")], "hold no text"),
        ([paper("a", "x"), paper("a", "y")], "two documents have the id a"),
    ],
)
def test_documents_that_make_no_index_are_refused_and_the_old_one_stays(small, wanted, words):
    made = small(paper("z", "Still there."))
    with pytest.raises(CorpusError, match=words):
        made.update(wanted)
    assert made.store.count() == 1 and retrieve.lexical(ask(made, "still"))


def test_one_document_is_replaced_without_the_others_being_named(small):
    made = small(paper("a", "About caches."), paper("b", "About blocks."))
    assert made.replace(paper("b", "About pages.")) == index.Changes(1, 1, 1)
    assert made.replace(paper("c", "About tokens.")) == index.Changes(1, 0, 2)
    assert made.replace(Document("a", " ")) == index.Changes(0, 1, 2)
    assert {one.text for one in made.passages.values()} == {"About pages.", "About tokens."} and made.updated > 0


def test_two_writers_at_once_keep_each_other_s_documents(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    both = threading.Barrier(2)

    def chunker(document):
        if document.id != "a":
            both.wait(20)  # neither writes before the other has begun
        return chunk.by_structure(document)

    made = small_index(paper("a", "About caches."), chunker=chunker)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(made.replace, [paper("b", "About blocks."), paper("c", "About tokens.")]))
    assert {one.document for one in made.passages.values()} == {"a", "b", "c"}
    assert made.store.ids() == made.passages.keys()


def test_a_right_that_is_taken_away_holds_from_then_on_even_if_deleting_fails(small, monkeypatch):
    made = small(paper("a", "The cache of old."), paper("b", "Blocks."))

    def broken(ids):
        raise stores.StoreError("the disk is full")

    monkeypatch.setattr(made.store, "delete", broken)
    with pytest.raises(stores.StoreError):
        made.replace(paper("a", "The cache of old.", "hr"))
    assert made.store.count() == 3, "the store holds the passage for everyone still"
    for retriever in (retrieve.dense, retrieve.lexical, retrieve.hybrid):
        assert "a" not in [one.passage.document for one in retriever(ask(made, "old cache"))]
    assert {one.document for one in rerank.candidates(ask(made, "old cache"))[0]} <= {"b"}


def test_passages_of_another_model_of_as_many_numbers_are_refused(small):
    made = small(paper("a", "About the cache."))
    other = dataclasses.replace(made.embedder, name="another-32")
    with pytest.raises(stores.StoreError, match="passages that another-32 did not embed"):
        index.Index(made.store, other)


def test_passages_of_other_weights_with_the_same_name_are_refused(small):
    made = small(paper("a", "About the cache."))
    other = dataclasses.replace(made.embedder, weights="c0ffee" * 10)
    with pytest.raises(stores.StoreError, match="passages that hashing-32@c0ffeec0ffee did not embed"):
        index.Index(made.store, other)


def test_a_share_of_words_weighs_the_rare_ones_more(small):
    words = small(*[paper(name, f"cache {rare}") for name, rare in zip("abc", WORDS[1:], strict=False)]).words
    rare, common = words.weight("block"), words.weight("cach")
    assert rare > common > 0
    assert words.share({"block", "cach"}, {"block", "other"}) == pytest.approx(rare / (rare + common))
    assert words.share(set(), {"block"}) == 0 == words.share({"block"}, set())


def test_a_corpus_in_another_script_and_an_empty_one_are_searched_without_an_error(small):
    empty = small()
    assert retrieve.hybrid(ask(empty, "cache")) == [] == retrieve.lexical(ask(empty, "cache"))
    made = small(paper("a", "你好 世界"), paper("b", "naïve Überstunden"))
    assert [one.passage.document for one in retrieve.lexical(ask(made, "世界"))] == ["a"]
    assert [one.passage.document for one in retrieve.lexical(ask(made, "Überstunden"))] == ["b"]
    signs = small(paper("a", "!? --"))
    assert retrieve.lexical(ask(signs, "cache")) == []


def test_a_store_of_another_model_is_refused():
    with pytest.raises(stores.StoreError, match="holds vectors of 16 numbers, hashing-32 makes 32"):
        index.Index(stores.open_store("exact:", "other", 16), hashing())


def test_terms_keep_identifiers_whole_and_in_parts():
    assert index.terms("Set max_num_seqs of SchedulerConfig!") == [
        "set",
        "max_num_seq",
        "max",
        "num",
        "seq",
        "schedulerconfig",
        "schedul",
        "config",
    ]


# --- retrieval


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_nothing_outside_a_readers_roles_is_ever_found(seed, tmp_path_factory):
    draw = random.Random(seed)
    roles = ["everyone", "hr", "finance", "security"]
    documents = [
        Document(f"d{number}", " ".join(draw.choices(WORDS, k=12)), frozenset(draw.sample(roles, draw.randint(1, 2))))
        for number in range(draw.randint(1, 30))
    ]
    made = small_index(*documents, embedder=kept_apart(tmp_path_factory))
    reader = frozenset(draw.sample(roles, draw.randint(0, 3)))
    question = " ".join(draw.choices(WORDS, k=4))
    may = {document.id for document in documents if document.roles & reader}
    for retriever in (retrieve.dense, retrieve.lexical, retrieve.hybrid, rewrite.multi_hop):
        found = {one.passage.document for one in retriever(ask(made, question, reader), 50)}
        assert found <= may
        assert retriever is retrieve.lexical or found == may, "and all of what may be read can be"
    assert {one.passage.document for one in rewrite.hyde(ask(made, question, reader), ["cache of a block"], 50)} == may
    assert {passage.document for passage in rerank.candidates(ask(made, question, reader))[0]} <= may


def test_what_is_searched_with_can_be_changed(small):
    made = small(
        paper("ticket", "The ticket names release Heron."),
        paper("Heron", "It adds blocks."),
        paper("other", "The ticket office sells tokens."),
    )
    asked = []

    def say(messages):
        asked.append(messages[0]["content"])
        return " What does\nHeron add? "

    assert rewrite.standalone(say, ["Which release is it?", "And what does it add?"]) == "What does Heron add?"
    assert asked[0].startswith("Which release is it?\nAnd what does it add?\n")
    assert rewrite.standalone(lambda _: "  ", ["One?", "Two?"]) == "Two?"
    assert rewrite.invented(say, "How many?") == "What does Heron add?" and "How many?" in asked[1]
    alone = retrieve.dense(ask(made, "zebra"), 1)[0].score
    helped = rewrite.hyde(ask(made, "zebra"), ["# heron it adds blocks."], 1)[0]
    assert helped.passage.document == "Heron" and helped.score > alone
    assert rewrite.hyde(ask(made, "zebra"), [], 1)[0].score == pytest.approx(alone), (
        "nothing invented: the question itself"
    )


def test_a_second_search_moves_up_what_the_first_one_names(small):
    fill = [paper(f"f{number}", f"Nothing but {word} here.") for number, word in enumerate(WORDS * 3)]
    made = small(paper("Heron", "The release of the ticket."), paper("goal", "With Heron come blocks."), *fill)
    once, twice = (
        [one.passage.document for one in search(ask(made, "release of the ticket"), 40)].index("goal")
        for search in (retrieve.hybrid, rewrite.multi_hop)
    )
    assert twice < once


class Seen:
    """In the place of a trained model: the chance of each row is its last number, and the rows are kept."""

    def __init__(self):
        self.rows = []

    def predict_proba(self, rows):
        self.rows.append(rows.tolist())
        return np.stack([1 - rows[:, -1], rows[:, -1]], 1)


def test_what_a_reader_may_not_read_does_not_show_in_how_sure_the_search_is(small):
    """Two corpora that differ in what two restricted texts say, with the same words in as many of them."""
    seen = []
    for texts in (("purchase harbour", "block token"), ("purchase block", "harbour token")):
        hidden = [paper(f"closed{number}", text, "hr") for number, text in enumerate(texts)]
        made = small(paper("open", "The latency of the purchase."), *hidden)
        model = Seen()
        rerank.Reranker(Seen(), model).judged(ask(made, "purchase of the harbour"))
        seen.append(model.rows)
    assert seen[0] == seen[1]


def test_a_question_that_is_judged_and_quoted_is_embedded_once_and_scored_by_bm25_once(small, monkeypatch):
    made = small(paper("open", "The latency of the cache."), paper("other", "The harbour of the ferry."))
    question, embedded, scored = "How long is the latency?", [], []
    encode, scores = made.embedder.encode, index.Words.scores
    made.embedder = dataclasses.replace(made.embedder, encode=lambda texts: embedded.extend(texts) or encode(texts))
    monkeypatch.setattr(index.Words, "scores", lambda *given: scored.append(given[1]) or scores(*given))
    asked = ask(made, question)
    found, _ = rerank.Reranker(Seen(), Seen()).judged(asked)
    assert answer.settle(asked, "Zebras.", [one.passage for one in found]).quoted
    assert embedded.count(question) == 1 and scored == [question]


def test_a_search_reads_the_cache_but_leaves_no_question_in_it_and_waits_for_no_lock(small, tmp_path):
    made, question = small(paper("open", "The latency of the cache.")), "How long is the latency?"

    def search():
        asked = ask(made, question)
        found, _ = rerank.Reranker(Seen(), Seen()).judged(asked)
        return answer.settle(asked, "Zebras.", [one.passage for one in found])

    with closing(sqlite3.connect(tmp_path / "embeddings.db")) as database, ThreadPoolExecutor(1) as pool:
        held = database.execute("select * from vectors").fetchall()
        free = search()
        assert database.execute("select * from vectors").fetchall() == held
        database.execute("begin exclusive")
        try:
            assert pool.submit(search).result(20) == free
        finally:
            database.rollback()


def test_a_reranker_that_was_trained_puts_what_answers_first_and_is_surer_of_it(small):
    facts = {f"{word}{number}": f"The {word} of {number} is set here." for number in range(5) for word in WORDS[:7]}
    made = small(*[paper(name, text) for name, text in facts.items()])
    texts = {name: f"# {name}\n\n{text}\n" for name, text in facts.items()}
    needs = {name: ((labels.Place(name, text),),) for name, text in facts.items()}
    questions = [labels.Question(name, f"What is {name}?", "answerable", "dev", needs[name]) for name in facts]
    questions += [labels.Question(f"no {n}", f"Who won race {n}?", "unrelated", "dev") for n in range(20)]
    reranker = training.train(made, questions, texts)
    found, sure = reranker.judged(ask(made, "What is token3?"))
    assert found[0].passage.document == "token3"
    assert sure > 0.5 > reranker.judged(ask(made, "Who won race 77?"))[1]


def kept_apart(factory):
    """The embedder with a cache of its own."""
    plain = hashing()
    return dataclasses.replace(plain, name=f"hashing-{factory.getbasetemp().name}")


def test_fusion_is_the_sum_of_reciprocal_ranks():
    one, two, three = (chunk.Passage(name, 0, 1, "x", "", frozenset()) for name in "abc")
    found = retrieve.fuse(
        [[retrieve.Found(one, 9), retrieve.Found(two, 8)], [retrieve.Found(two, 1), retrieve.Found(three, 0)]], limit=2
    )
    assert [(each.passage.document, each.score) for each in found] == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61)]


def test_a_question_of_unknown_words_finds_nothing_by_words(small):
    assert retrieve.lexical(ask(small(paper("a", "Words.")), "zyzzyva")) == []
