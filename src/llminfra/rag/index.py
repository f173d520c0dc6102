"""An index of passages: their embeddings in a store, their words for BM25, kept equal to the documents."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import warnings
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import Stemmer
from numpy.typing import NDArray

from llminfra import embed, stores
from llminfra.errors import CorpusError, StoreError
from llminfra.rag import chunk
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import Document

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

    The id of a passage is a hash of all that it holds and of the model, so the store itself says what it has: nothing is kept
    beside it that could disagree with it. Threads may search while one writes; writers take turns. Another process that changes
    the same store is noticed by `refresh`.
    """

    def __init__(
        self, store: stores.Store, embedder: embed.Embedder | None = None, chunker: chunk.Chunker = chunk.by_structure
    ):
        self.store, self.embedder, self.chunker = store, embedder or embed.minilm(), chunker
        if store.dimensions != self.embedder.dimensions:
            raise StoreError(
                f"the store holds vectors of {store.dimensions} numbers, {self.embedder.name} makes {self.embedder.dimensions}: "
                "index again into a new collection"
            )
        self.updated = 0.0
        """When this process last changed the index, in seconds since 1970; 0 if it never did."""
        self._writing = threading.Lock()
        self._vector = lru_cache(1 << 14)(lambda text: self.embedder.query([text])[0])
        self.refresh()

    @property
    def passages(self) -> dict[int, Passage]:
        """The passages by their numbers in the store."""
        return self.words.passages

    def vectors(self, passages: Sequence[Passage]) -> embed.Vectors:
        """Return the embeddings of passages for a search, an array of (n, dimensions); this process remembers them."""
        return np.stack([self._vector(one.searched) for one in passages])

    def refresh(self) -> None:
        """Read again what the store holds. Raises StoreError if another model embedded it, also one of as many numbers."""
        with self._writing:
            passages = {number: passage_of(payload) for number, payload in self.store.contents().items()}
            if any(number != identity(one, self.embedder.key) for number, one in passages.items()):
                raise StoreError(
                    f"the store holds passages that {self.embedder.key} did not embed: index again into a new collection"
                )
            self.words = Words(passages)

    def update(self, documents: Sequence[Document]) -> Changes:
        """Make the index hold exactly the passages of these documents. Raises CorpusError where there are none.

        What is left out is deleted; for one document that changed there is `replace`. New passages are written before old ones are
        deleted, and an update that was interrupted is finished by the next: a reader finds the old passages or the new ones.
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
        wanted = self._cut(documents)
        if not wanted:
            raise CorpusError("the documents hold no text: nothing to index")
        with self._writing:
            return self._become(wanted)

    def replace(self, document: Document) -> Changes:
        """Put a document in the place of the one with its id, or beside the others; one without text deletes what was there."""
        wanted = self._cut([document])
        with self._writing:
            others = {number: one for number, one in self.passages.items() if one.document != document.id}
            return self._become(others | wanted)

    def _cut(self, documents: Sequence[Document]) -> dict[int, Passage]:
        return {identity(one, self.embedder.key): one for one in chunk.cut(documents, self.chunker)}

    def _become(self, wanted: dict[int, Passage]) -> Changes:
        present = self.store.ids()
        new = [number for number in wanted if number not in present]
        gone = sorted(present - wanted.keys())
        vectors = self.embedder([wanted[number].searched for number in new])
        for first in range(0, len(new), BATCH):
            batch = new[first : first + BATCH]
            self.store.upsert(batch, vectors[first : first + BATCH], [_payload(wanted[number]) for number in batch])
        if wanted.keys() != self.passages.keys():
            self.words = Words(wanted)  # from here on readers find the new passages and no old one
        if gone:
            self.store.delete(gone)
        if new or gone:
            self.updated = time.time()
        return Changes(len(new), len(gone), len(wanted) - len(new))


class Words:
    """Passages, and BM25 over their words (Robertson and Zaragoza 2009, k1 1.2, b 0.75, without the factor k1 + 1), by bm25s.

    Never changed, only replaced: who holds one sees one state of the index.
    """

    def __init__(self, passages: dict[int, Passage]):
        self.passages = passages
        listed = [terms(passage.searched) for passage in passages.values()]
        self.bm25 = bm25s.BM25(k1=1.2, b=0.75)
        self._known: dict[str, int] = {}
        if any(listed):
            self.bm25.index(listed, show_progress=False)
            self._known = self.bm25.vocab_dict

    def scores(self, question: str, roles: Collection[str]) -> NDArray[np.float32]:
        """Return the BM25 score of each passage; 0 where they share no word or a reader with these roles may not read it."""
        asked = [word for word in terms(question) if word in self._known]
        scores = np.zeros(len(self.passages), np.float32)
        if asked:
            readers = frozenset(roles)
            readable = [bool(passage.roles & readers) for passage in self.passages.values()]
            scores[readable] = self.bm25.get_scores(asked)[readable]
        return scores

    def weight(self, word: str) -> float:
        """Return the inverse document frequency of a term among all passages; a term that none holds has the greatest."""
        known = self._known.get(word)
        count = 0 if known is None else int(np.diff(self.bm25.scores["indptr"][known : known + 2])[0])
        return float(np.log(1 + (len(self.passages) - count + 0.5) / (count + 0.5)))

    def share(self, wanted: Set[str], held: Set[str]) -> float:
        """Return the share of the wanted terms that are held, each weighted by how rare it is; 0 where none is wanted."""
        weights = {word: self.weight(word) for word in wanted}
        return sum(weights[word] for word in wanted & held) / sum(weights.values()) if wanted else 0.0


_stem = Stemmer.Stemmer("english")


def terms(text: str) -> list[str]:
    """Return the stems of a text's words without stop words; an identifier counts whole and in its parts."""
    found = []
    for word in re.findall(r"\w+", text):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", word) if word.isascii() else word.split("_")
        if len(parts) > 1:
            found.append(word.lower())
        found += [part.lower() for part in parts]
    return list(_stem.stemWords([word for word in found if word not in STOP]))


@lru_cache(1 << 16)
def held(text: str) -> frozenset[str]:
    """Return the terms of a text, each once."""
    return frozenset(terms(text))


def identity(passage: Passage, model: str) -> int:
    """Return a number for a passage, from all that is kept of it and the key of its embedder: below 2^63, as every engine takes it."""
    said = "\0".join([model, passage.id, passage.context, passage.text, *sorted(passage.roles)])
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
