"""Order candidates again by a model that learned from labelled questions, and say how sure it is of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llminfra.rag import retrieve
from llminfra.rag.chunk import Passage
from llminfra.rag.index import held, terms
from llminfra.rag.retrieve import DEPTH, Asked, Found

FEATURES = (
    "cosine of the passage",
    "BM25, as a share of the best",
    "1 / rank by meaning",
    "1 / rank by words",
    "question's words in the passage",
    "heading's words in the question",
    "logarithm of its length",
)
SURE = (
    "chance of the first",
    "chance of the second",
    "greatest cosine",
    "question's words in the first",
    "question's words anywhere in the first five",
    "best BM25 for each unit of weight",
)


@dataclass(frozen=True)
class Reranker:
    """Two logistic regressions: one gives a passage the chance that it answers, one a question the chance that it is answered."""

    passage: Any
    question: Any

    def __call__(self, asked: Asked, limit: int = 10) -> list[Found]:
        """Return the candidates of both retrievers, ordered by the chance that they answer the question."""
        return self.judged(asked)[0][:limit]

    def judged(self, asked: Asked) -> tuple[list[Found], float]:
        """Return all candidates in their order, and the chance that the corpus answers the question; no candidate: 0."""
        passages, rows = candidates(asked)
        if not passages:
            return [], 0.0
        found = ordered(passages, self.passage.predict_proba(rows)[:, 1])
        sure = self.question.predict_proba(evidence(asked, found, rows)[None])[0, 1]
        return found, float(sure)


def candidates(asked: Asked) -> tuple[list[Passage], NDArray[np.float64]]:
    """Return what `dense` and `lexical` find, and a row of `FEATURES` for each."""
    near, worded = retrieve.dense(asked, DEPTH), retrieve.lexical(asked, DEPTH)
    passages = list({one.passage.id: one.passage for one in [*near, *worded]}.values())
    if not passages:
        return [], np.empty((0, len(FEATURES)))
    ranks = [{one.passage.id: rank for rank, one in enumerate(found, 1)} for found in (near, worded)]
    best = {one.passage.id: one.score / worded[0].score for one in worded}
    cosines = asked.index.vectors(passages) @ asked.vector
    words, share = set(terms(asked.question)), asked.words.share
    rows = []
    for one, cosine in zip(passages, cosines, strict=True):
        rows.append(
            [
                cosine,
                best.get(one.id, 0.0),
                *(1 / rank[one.id] if one.id in rank else 0.0 for rank in ranks),
                share(words, held(one.searched)),
                share(set(terms(heading(one))), words),
                np.log(len(one.text)),
            ]
        )
    return passages, np.array(rows, float)


def heading(passage: Passage) -> str:
    """Return the last heading of a passage, the first words of one that has none."""
    return passage.context.rpartition(" > ")[2] or passage.text[:80]


def ordered(passages: Sequence[Passage], scores: NDArray[np.float64]) -> list[Found]:
    """Return the passages with their scores, the highest first."""
    return [Found(passages[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")]


def evidence(asked: Asked, found: Sequence[Found], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a row of `SURE`, from passages that the reader may read."""
    words, share = set(terms(asked.question)), asked.words.share
    bodies = [held(one.passage.searched) for one in found[:5]]
    total = sum(map(asked.words.weight, words)) or 1.0
    best = max(float(asked.scores.max()), 0.0)
    second = found[1].score if len(found) > 1 else 0.0
    return np.array(
        [
            found[0].score,
            second,
            rows[:, 0].max(),
            share(words, bodies[0]),
            share(words, set().union(*bodies)),
            best / total,
        ]
    )
