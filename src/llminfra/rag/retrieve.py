"""Find passages: by meaning, by words, by both, and in more than one step. A reader's roles decide before anything is ranked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llminfra import embed
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import EVERYONE
from llminfra.rag.index import Index, Words

READER = frozenset({EVERYONE})
DEPTH = 50
"""How many passages each retriever gives to a fusion or a reranker."""
RRF_K = 60
"""The constant of reciprocal rank fusion, as in Cormack, Clarke and Büttcher (2009)."""


@dataclass(frozen=True)
class Asked:
    """A question, its reader's roles, and the state of the index that answers it: `words`.

    All that searches, judges and quotes for it takes this, so that the question is embedded once and scored by BM25 once, each
    when it is first needed.
    """

    index: Index
    question: str
    roles: frozenset[str]
    words: Words

    @cached_property
    def vector(self) -> embed.Vectors:
        """The question's embedding, of as many numbers as the index has dimensions."""
        row: embed.Vectors = self.index.embedder.query([self.question])[0]
        return row

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The BM25 score of each passage of `words`, 0 for what the reader may not read."""
        return self.words.scores(self.question, self.roles)


@dataclass(frozen=True)
class Found:
    """A passage with the score by which it was ranked; scores of different retrievers do not compare."""

    passage: Passage
    score: float


def ask(index: Index, question: str, roles: Collection[str] = READER) -> Asked:
    """Return the question as a reader with these roles asks it of the index as it is now."""
    return Asked(index, question, frozenset(roles), index.words)


def dense(asked: Asked, limit: int = 10) -> list[Found]:
    """Return the passages whose embeddings are nearest to the question's, by cosine."""
    return near(asked, asked.vector, limit)


def near(asked: Asked, vector: embed.Vectors, limit: int) -> list[Found]:
    """Return the passages that the one who asks may read and whose embeddings are nearest to a vector, by cosine.

    What the store holds and this state of the index does not (yet, or any more: an update is under way) is left out.
    """
    hits = asked.index.store.search(vector, limit, where={"roles": sorted(asked.roles)})
    passages = asked.words.passages
    return [Found(passages[hit.id], hit.score) for hit in hits if hit.id in passages]


def lexical(asked: Asked, limit: int = 10) -> list[Found]:
    """Return the passages with the highest BM25 scores; one that shares no word with the question is not found."""
    passages = list(asked.words.passages.values())
    best = np.argsort(-asked.scores, kind="stable")[:limit]
    return [Found(passages[row], float(asked.scores[row])) for row in best if asked.scores[row] > 0]


def fuse(lists: Iterable[Sequence[Found]], limit: int = 10, k: int = RRF_K) -> list[Found]:
    """Return what several lists found by reciprocal rank fusion: the sum of 1 / (k + rank) over the lists, ranks from 1."""
    sums: dict[str, float] = defaultdict(float)
    passages: dict[str, Passage] = {}
    for found in lists:
        for rank, one in enumerate(found, 1):
            sums[one.passage.id] += 1 / (k + rank)
            passages[one.passage.id] = one.passage
    best = sorted(sums, key=lambda name: (-sums[name], name))[:limit]
    return [Found(passages[name], sums[name]) for name in best]


def hybrid(asked: Asked, limit: int = 10) -> list[Found]:
    """Return the fusion of what `dense` and `lexical` find."""
    return fuse([dense(asked, DEPTH), lexical(asked, DEPTH)], limit)
