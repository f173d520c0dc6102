"""An index of passages: their embeddings in a store, their words for BM25, kept equal to the documents."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import Stemmer
from numpy.typing import NDArray

from llminfra import embed
from llminfra.rag import chunk, stores
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import CorpusError, Document

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook it asks for widgets to draw progress bars with
    import bm25s

BATCH = 512
STOP = frozenset(["a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "has", "have", "how", "i", "if", "in", "is", "it", "its", "of", "on", "or", "should", "so", "that", "the", "this", "to", "was", "what", "when", "where", "which", "while", "who", "why", "will", "with", "you", "your"])  # fmt: skip


@dataclass(frozen=True)
class Changes:
    """What an update did, in passages: `added` were embedded and written, `removed` deleted, `kept` not touched."""

    added: int
    removed: int
    kept: int


class Index:
    """Passages that can be found by meaning (`store`) and by words (`words`).

    The id of a passage is a hash of all that it holds, so the store itself says what it has: nothing is kept beside it that could
    disagree with it.
    """

    def __init__(
        self, store: stores.Store, embedder: embed.Embedder | None = None, chunker: chunk.Chunker = chunk.by_structure
    ):
        self.store, self.embedder, self.chunker = store, embedder or embed.minilm(), chunker
        if store.dimensions != self.embedder.dimensions:
            raise stores.StoreError(
                f"the store holds vectors of {store.dimensions} numbers, {self.embedder.name} makes {self.embedder.dimensions}: "
                "index again into a new collection"
            )
        self.passages: dict[int, Passage] = {number: passage_of(held) for number, held in store.contents().items()}
        self._words: Words | None = None

    def update(self, documents: Sequence[Document]) -> Changes:
        """Make the index hold exactly the passages of these documents. Raises CorpusError where there are none.

        New passages are written before old ones are deleted, and an update that was interrupted is finished by the next: a reader
        meanwhile finds the old passages, the new ones, or both, but never a gap.
        """
        if not documents:
            raise CorpusError(
                "no documents: an update with none would empty the index; delete the collection if that is meant"
            )
        twice = (
            {one.id for one in documents if sum(other.id == one.id for other in documents) > 1}
            if len({one.id for one in documents}) < len(documents)
            else set()
        )
        if twice:
            raise CorpusError(f"two documents have the id {sorted(twice)[0]}")
        wanted = {identity(passage): passage for passage in chunk.cut(documents, self.chunker)}
        if not wanted:
            raise CorpusError("the documents hold no text: nothing to index")
        present = self.store.ids()
        new = [number for number in wanted if number not in present]
        gone = sorted(present - wanted.keys())
        vectors = self.embedder([wanted[number].searched for number in new])
        for first in range(0, len(new), BATCH):
            batch = new[first : first + BATCH]
            self.store.upsert(batch, vectors[first : first + BATCH], [_payload(wanted[number]) for number in batch])
        if gone:
            self.store.delete(gone)
        self.passages, self._words = wanted, None
        return Changes(len(new), len(gone), len(wanted) - len(new))

    @property
    def words(self) -> Words:
        """The BM25 index of the passages, made when it is first asked for."""
        if self._words is None:
            self._words = Words(self.passages)
        return self._words

    def allowed(self, roles: Iterable[str]) -> NDArray[np.bool_]:
        """Return for each passage, in the order of `passages`, whether a reader with these roles may read it."""
        readers = frozenset(roles)
        return np.array([bool(passage.roles & readers) for passage in self.passages.values()])


class Words:
    """BM25 over the words of passages (Robertson and Zaragoza 2009, k1 1.2, b 0.75), by bm25s."""

    def __init__(self, passages: dict[int, Passage]):
        self.numbers = list(passages)
        listed = [terms(passage.searched) for passage in passages.values()]
        self.held = {passage.id: frozenset(words) for passage, words in zip(passages.values(), listed, strict=True)}
        """The terms of each passage, by its id."""
        self.bm25 = bm25s.BM25(k1=1.2, b=0.75)
        self.bm25.index(listed, show_progress=False)

    def scores(self, question: str) -> NDArray[np.float32]:
        """Return the BM25 score of each passage; 0 where they share no word."""
        asked = [word for word in terms(question) if word in self.bm25.vocab_dict]
        if not asked:
            return np.zeros(len(self.numbers), np.float32)
        scores: NDArray[np.float32] = self.bm25.get_scores(asked)
        return scores

    def weight(self, word: str) -> float:
        """Return the inverse document frequency of a term; a term that no passage holds has the greatest."""
        held = self.bm25.vocab_dict.get(word)
        count = 0 if held is None else int(np.diff(self.bm25.scores["indptr"][held : held + 2])[0])
        return float(np.log(1 + (len(self.numbers) - count + 0.5) / (count + 0.5)))


_stem = Stemmer.Stemmer("english")


def terms(text: str) -> list[str]:
    """Return the stems of a text's words without stop words; an identifier counts whole and in its parts."""
    found = []
    for word in re.findall(r"[A-Za-z0-9_]+", text):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", word)
        if len(parts) > 1:
            found.append(word.lower())
        found += [part.lower() for part in parts]
    return list(_stem.stemWords([word for word in found if word not in STOP]))


def identity(passage: Passage) -> int:
    """Return a number for a passage, from all that is kept of it: below 2^63, as every engine takes it."""
    said = "\0".join([passage.id, passage.context, passage.text, *sorted(passage.roles)])
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 1


def _payload(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "context": passage.context,
        "roles": sorted(passage.roles),
    }


def passage_of(held: dict[str, Any]) -> Passage:
    """Return the passage of a payload that `Index.update` stored."""
    return Passage(
        held["document"], held["start"], held["end"], held["text"], held["context"], frozenset(held["roles"])
    )
