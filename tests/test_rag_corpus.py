"""Documents are read whole, cut without loss, and labelled with words that they hold."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import WORDS, hashing, paper

from llminfra import embed
from llminfra.errors import CorpusError, LabelError
from llminfra.rag import chunk, corpus
from llminfra.rag.corpus import Document
from llminfra.rag.judgments import labels, relevance

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def documents():
    """All that is searched: the packages' reference text and the invented company's files."""
    return [*corpus.packages(), *corpus.company()]


# --- documents


def test_the_corpus_is_large_varied_and_the_same_each_time(documents, covered):
    packages = [document for document in documents if document.id.split("/")[0] != "company"]
    again = corpus.packages()
    assert again == packages
    passages = chunk.cut(packages)
    assert 4000 < len(passages) < 7000
    assert {"vllm", "transformers", "peft", "qdrant_client", "fastapi"} <= {
        document.id.split("/")[0] for document in packages
    }
    covered(
        "corpus",
        f"{len(packages)} documents of installed packages, {len(passages)} passages; {len(documents) - len(packages)} of the company",
    )


def test_no_document_holds_a_path_of_this_machine_or_stands_twice(documents):
    assert len({document.id for document in documents}) == len(documents)
    assert not [document.id for document in documents if "site-packages/" in document.text or "/root/" in document.text]


def test_a_module_says_what_its_docstrings_fields_options_and_variables_say():
    source = '''"""What this module is for, in so many words that it is kept and found."""
class Cache:
    """Holds blocks of keys and values for all requests that are running now."""
    block_size: int = 16
    """Tokens in a block; a prefix is shared by whole blocks alone."""
    def _hidden(self):
        """This is nobody's business outside of the class, though it is long."""
def add(argument):
    parser.add_argument("--seats", help="How many may sit at once; more of them wait until one gets up.")
table = {
    # Where the cache is kept between two runs of the program, a folder's name.
    "THE_CACHE_FOLDER": lambda: 1,
}
'''
    said = dict(corpus.reference(source))
    assert said["Cache.block_size: int = 16"].startswith("Tokens in a block")
    assert said["option --seats"].startswith("How many") and said["environment variable THE_CACHE_FOLDER"].startswith(
        "Where"
    )
    assert set(said) == {
        "",
        "class Cache",
        "Cache.block_size: int = 16",
        "option --seats",
        "environment variable THE_CACHE_FOLDER",
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("junk.md", bytes(range(256)), "is not UTF-8 text"),
        ("nul.txt", b"text\0text", "holds NUL"),
        ("front.md", b"---\nroles: [\n---\ntext", "is not YAML"),
        ("roles.md", b"---\nroles: []\n---\ntext", "must be a list of names"),
        ("blank.md", b'---\nroles: [""]\n---\ntext', "must be a list of names"),
        ("other.md", b"---\nrole: [hr]\n---\ntext", "`roles` and nothing else"),
        ("open.md", b"---\nroles: [hr]\ntext", "who may read it is not known"),
    ],
)
def test_a_file_that_is_no_document_is_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name}.*{words}"):
        corpus.folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"---\r\nroles: [hr]\r\n---\r\ntext",
        b"\xef\xbb\xbf---\nroles: [hr]\n---\ntext",
        b"---\nroles: [hr]\n---",
        b"--- \nroles: [hr]\n--- \ntext",
        b"---\nroles: [hr]\n...\ntext",
    ],
)
def test_front_matter_is_read_however_an_editor_saved_it(tmp_path, content):
    (tmp_path / "one.md").write_bytes(content)
    assert [document.roles for document in corpus.folder(tmp_path)] == [frozenset({"hr"})]


def test_a_folder_without_documents_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="nothing to index"):
        corpus.folder(tmp_path)


def test_ten_megabytes_are_cut_in_one_go_and_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    draw = random.Random(0)
    text = "\n".join(" ".join(draw.choices(WORDS, k=50)) for _ in range(33_000))
    (tmp_path / "long.md").write_text(text)
    assert len(text) > 10_000_000
    [document] = corpus.folder(tmp_path)
    passages = chunk.recursive(document)
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())
    monkeypatch.setattr(corpus, "MAX_BYTES", 1_000_000)
    with pytest.raises(CorpusError, match="above the limit of 1,000,000: split it"):
        corpus.folder(tmp_path)


# --- passages

MARKDOWN = st.lists(
    st.one_of(
        st.text(alphabet="ab cd.\n`#-é", max_size=200),
        st.sampled_from(
            ["# Head\n", "## Section\n", "### Part\n", "```\ncode # no heading\n```\n", "\n\n", "word " * 90]
        ),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("chunker", [chunk.fixed, chunk.recursive, chunk.by_structure], ids=lambda one: one.__name__)
@given(text=MARKDOWN, size=st.integers(5, 60))
@settings(max_examples=60, deadline=None)
def test_passages_are_pieces_of_their_document_and_no_word_is_lost(chunker, text, size):
    options = {"overlap": size // 4} if chunker is chunk.fixed else {}
    document = Document("d", text)
    passages = chunker(document, size=size, **options)
    assert all(text[one.start : one.end] == one.text for one in passages)
    assert all(len(embed.tokenizer().encode(one.text, add_special_tokens=False).ids) <= size + 1 for one in passages)
    held = set().union(*(range(one.start, one.end) for one in passages))
    lost = [at for at, letter in enumerate(text) if not letter.isspace() and at not in held]
    heads = {at for head in heads_of(text) for at in range(*head)} if chunker is chunk.by_structure else set()
    assert not set(lost) - heads


def heads_of(text):
    """Where headings stand: they become the context of what is under them."""
    at, fence = 0, 0
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        ticks = len(bare) - len(bare.lstrip("`"))
        if ticks >= 3 and "`" not in bare[ticks:]:
            if not fence:
                fence = ticks
            elif ticks >= fence and len(bare) == ticks:
                fence = 0
        if not fence and line.startswith("#"):
            yield at, at + len(line)
        at += len(line)


def test_a_section_knows_the_headings_it_stands_under():
    document = Document(
        "guide", "# Guide\n\nIntroduction.\n\n## Blocks\n\nOf tokens.\n\n### Size\n\nSixteen.\n\n## Queue\n\nWaits.\n"
    )
    assert [(one.context, one.text) for one in chunk.by_structure(document)] == [
        ("guide > Guide", "Introduction."),
        ("guide > Guide > Blocks", "Of tokens."),
        ("guide > Guide > Blocks > Size", "Sixteen."),
        ("guide > Guide > Queue", "Waits."),
    ]


@pytest.mark.parametrize(
    "block",
    [
        "````md\n```\n# not a heading\n```\n# nor this\n````\n",
        "```md\n```python\n# not a heading\n```\n",
        "~~~\n```\n# not a heading\n~~~\n",
        "```\n# not a heading\n`````\n",
    ],
)
def test_a_line_in_a_code_block_heads_no_section_whatever_fences_the_block(block):
    document = Document("guide", f"# Guide\n\n{block}\n## Blocks\n\nOf tokens.\n")
    assert [one.context for one in chunk.by_structure(document)] == ["guide > Guide", "guide > Guide > Blocks"]


def test_overlap_below_the_size_only():
    with pytest.raises(ValueError, match="overlap 5: must be"):
        chunk.fixed(Document("d", "words"), size=5, overlap=5)


def test_meaning_cuts_where_the_subject_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    document = Document(
        "d",
        "cache block cache. block cache block. cache cache block. vector token vector. token vector token. vector vector token.",
    )
    passages = chunk.by_meaning(document, hashing(), share=0.2)
    assert [one.text.split()[0] for one in passages] == ["cache", "vector"]


# --- labels


def test_every_label_stands_in_the_corpus_and_there_are_enough(documents, hold, covered):
    questions = labels.load()
    hold(labels.problems(questions, documents))
    kinds = {kind: [one for one in questions if one.kind == kind] for kind in labels.KINDS}
    assert sum(one.answerable for one in questions) >= 150 and len(kinds["unanswerable"]) >= 40
    assert len(kinds["restricted"]) >= 15 and len(kinds["injected"]) >= 10
    assert sum(len(one.needs) > 1 for one in questions) >= 20
    for kind, held in kinds.items():
        assert 0.35 < sum(one.split == "test" for one in held) / len(held) < 0.65, kind
    covered(
        "labels", ", ".join(f"{len(held)} {kind}" for kind, held in kinds.items()) + " questions, each quote found once"
    )


GOOD = {
    "id": "q",
    "question": "How many?",
    "kind": "answerable",
    "split": "dev",
    "needs": [{"document": "d", "quote": "there are sixteen of them"}],
    "answer": "Sixteen.",
    "words": ["sixteen|16"],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"split": "train"}, "split 'train'"),
        ({"needs": []}, "an unanswerable or unrelated question has no needs"),
        ({"kind": "unanswerable"}, "an unanswerable or unrelated question has no needs"),
        ({"needs": [{"document": "e", "quote": "there are sixteen of them"}]}, "no document e"),
        ({"needs": [{"document": "d", "quote": "there are seventeen of them"}]}, "0 times, it must be once"),
        ({"needs": [{"document": "d", "quote": "twice and twice"}]}, "2 times, it must be once"),
        ({"needs": [{"document": "d", "quote": "sixteen"}]}, "a quote of 7 letters"),
        ({"needs": [{"document": "secret", "quote": "the salary is a secret"}]}, "the reader has"),
        ({"answer": "Many."}, "its own answer holds none of"),
        ({"words": []}, "words that each right answer holds"),
        ({"kind": "restricted"}, "answered by restricted documents alone"),
        ({"kind": "injected"}, "names in `forbidden`"),
    ],
)
def test_the_linter_names_each_wrong_label(change, words):
    texts = [
        Document("d", "And there  are\nsixteen of them. twice and twice, twice and twice."),
        paper("secret", "the salary is a secret", "hr"),
    ]
    said = labels.problems([labels._question(GOOD | change, "bad.yml")], texts)
    assert said == [] if words is None else any(words in line for line in said), said


def test_an_id_that_is_taken_is_named():
    one = labels._question(GOOD, "bad.yml")
    assert any(
        "its id is taken" in line for line in labels.problems([one, one], [Document("d", "there are sixteen of them")])
    )


PLACE = {"document": "d", "quote": "there are sixteen of them"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"question": "?"}, "a question without an id"),
        (["q"], "a question without an id"),
        (GOOD | {"colour": "red"}, r"unknown \['colour'\]"),
        ({"id": "q"}, r"missing \['kind', 'question', 'split'\]"),
        (GOOD | {"question": 7}, "`question` must be text, not '7'"),
        (GOOD | {"needs": None}, "`needs` must be a list, not 'None'"),
        (GOOD | {"needs": PLACE}, "`needs` must be a list"),
        (GOOD | {"needs": ["there are sixteen of them"]}, "a place is a `document` and a `quote`"),
        (GOOD | {"needs": [{"document": "d"}]}, "a place is a `document` and a `quote`"),
        (GOOD | {"needs": [PLACE | {"quote": 16}]}, "a place is a `document` and a `quote`"),
        (GOOD | {"needs": [PLACE | {"qoute": "x"}]}, "a place is a `document` and a `quote`"),
        (GOOD | {"needs": [PLACE | {"also": "d"}]}, "`also` must be a list"),
        (GOOD | {"needs": [PLACE | {"also": [None]}]}, "a place is a `document` and a `quote`"),
        (GOOD | {"needs": [PLACE | {"also": [PLACE | {"also": []}]}]}, "a place is a `document` and a `quote`"),
        (GOOD | {"words": "sixteen"}, "`words` must be a list"),
        (GOOD | {"roles": "hr"}, "`roles` must be a list"),
    ],
)
def test_a_label_that_cannot_be_read_is_refused_by_file_and_id(tmp_path, raw, words):
    (tmp_path / "bad.yml").write_text(json.dumps([raw]))
    with pytest.raises(LabelError, match=f"^bad.yml: .*{words}"):
        labels.load(folder=tmp_path)


def test_a_place_may_have_others_beside_it():
    raw = GOOD | {"needs": [PLACE | {"also": [PLACE | {"document": "e"}]}]}
    assert [[place.document for place in need] for need in labels._question(raw, "good.yml").needs] == [["d", "e"]]


def test_a_split_that_there_is_not_is_refused():
    assert {one.split for one in labels.load("test")} == {"test"}
    with pytest.raises(LabelError, match=r"no split 'Test', only dev and test; did you mean 'test'\?"):
        labels.load("Test")


def test_evidence_counts_each_need_once():
    question = labels._question(
        GOOD
        | {
            "needs": [
                {"document": "a", "quote": "cache holds sixteen blocks"},
                {"document": "b", "quote": "blocks of sixteen tokens"},
            ]
        },
        "x",
    )
    texts = {"a": "The cache holds sixteen blocks, no more.", "b": "They are blocks of sixteen tokens each."}
    passages = [chunk.recursive(Document(name, text))[0] for name, text in texts.items()]
    assert relevance.covered(question, passages[:1], texts) == 0.5 and relevance.covered(question, passages, texts) == 1
    assert relevance.relevant(question, passages, texts) == {passage.id: 1 for passage in passages}
