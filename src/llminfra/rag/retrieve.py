"""Find passages: by meaning, by words, by both, and in more than one step. A reader's roles decide before anything is ranked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llminfra import embed
from llminfra.rag import labels
from llminfra.rag.chunk import Passage
from llminfra.rag.corpus import EVERYONE
from llminfra.rag.index import Index

READER = frozenset({EVERYONE})
DEPTH = 50
"""How many passages each retriever gives to a fusion or a reranker."""
RRF_K = 60
"""The constant of reciprocal rank fusion, as in Cormack, Clarke and Büttcher (2009)."""


@dataclass(frozen=True)
class Found:
    """A passage with the score by which it was ranked; scores of different retrievers do not compare."""

    passage: Passage
    score: float


def dense(index: Index, question: str, limit: int = 10, roles: Collection[str] = READER) -> list[Found]:
    """Return the passages whose embeddings are nearest to the question's, by cosine."""
    return near(index, index.embedder([question])[0], limit, roles)


def near(index: Index, vector: embed.Vectors, limit: int, roles: Collection[str]) -> list[Found]:
    """Return the passages whose embeddings are nearest to a vector, by cosine.

    What the store holds and the index does not (yet, or any more: an update is under way) is left out.
    """
    hits = index.store.search(vector, limit, where={"roles": sorted(roles)})
    passages = index.words.passages
    return [Found(passages[hit.id], hit.score) for hit in hits if hit.id in passages]


def lexical(index: Index, question: str, limit: int = 10, roles: Collection[str] = READER) -> list[Found]:
    """Return the passages with the highest BM25 scores; one that shares no word with the question is not found."""
    words = index.words  # once: an update replaces it as a whole
    scores = words.scores(question, roles)
    passages = list(words.passages.values())
    return [
        Found(passages[row], float(scores[row]))
        for row in np.argsort(-scores, kind="stable")[:limit]
        if scores[row] > 0
    ]


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


def hybrid(index: Index, question: str, limit: int = 10, roles: Collection[str] = READER) -> list[Found]:
    """Return the fusion of what `dense` and `lexical` find."""
    return fuse([dense(index, question, DEPTH, roles), lexical(index, question, DEPTH, roles)], limit)


def relevant(question: labels.Question, passages: Iterable[Passage], texts: dict[str, str]) -> dict[str, int]:
    """Return {passage id: 1} for each passage that holds at least half of the words of a place that answers the question.

    `texts` gives each document's text. Half is enough, because a chunker may cut through a quote.
    """
    wanted = defaultdict(list)
    for need in question.needs:
        for place in need:
            for span in labels.find(texts[place.document], place.quote):
                wanted[place.document].append(span)
    return {one.id: 1 for one in passages if any(_holds(one, span) for span in wanted.get(one.document, ()))}


def covered(question: labels.Question, found: Iterable[Passage], texts: dict[str, str]) -> float:
    """Return the share of what the question needs that these passages hold: the recall of evidence."""
    passages = list(found)
    met = [
        any(
            one.document == place.document and _holds(one, span)
            for one in passages
            for place in need
            for span in labels.find(texts[place.document], place.quote)
        )
        for need in question.needs
    ]
    return sum(met) / len(met)


def _holds(passage: Passage, span: tuple[int, int]) -> bool:
    return 2 * (min(passage.end, span[1]) - max(passage.start, span[0])) >= span[1] - span[0]
