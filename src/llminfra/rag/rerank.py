"""Order candidates again by a model that learned from labelled questions, and say how sure it is of the first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llminfra.rag import labels, retrieve
from llminfra.rag.chunk import Passage
from llminfra.rag.index import Index, held, terms
from llminfra.rag.retrieve import DEPTH, READER, Found

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

    def __call__(self, index: Index, question: str, limit: int = 10, roles: Collection[str] = READER) -> list[Found]:
        """Return the candidates of both retrievers, ordered by the chance that they answer the question."""
        return self.judged(index, question, roles)[0][:limit]

    def judged(self, index: Index, question: str, roles: Collection[str] = READER) -> tuple[list[Found], float]:
        """Return all candidates in their order, and the chance that the corpus answers the question; no candidate: 0."""
        passages, rows = candidates(index, question, roles)
        if not passages:
            return [], 0.0
        found = _ordered(passages, self.passage.predict_proba(rows)[:, 1])
        sure = self.question.predict_proba(_sure(index, question, found, rows, roles)[None])[0, 1]
        return found, float(sure)


def candidates(
    index: Index, question: str, roles: Collection[str] = READER
) -> tuple[list[Passage], NDArray[np.float64]]:
    """Return what `dense` and `lexical` find, and a row of `FEATURES` for each."""
    near = retrieve.dense(index, question, DEPTH, roles)
    worded = retrieve.lexical(index, question, DEPTH, roles)
    passages = list({one.passage.id: one.passage for one in [*near, *worded]}.values())
    if not passages:
        return [], np.empty((0, len(FEATURES)))
    ranks = [{one.passage.id: rank for rank, one in enumerate(found, 1)} for found in (near, worded)]
    best = {one.passage.id: one.score / worded[0].score for one in worded}
    asked = index.embedder([question])[0]
    bodies = index.embedder([one.searched for one in passages]) @ asked
    words, weight = set(terms(question)), index.words.weight
    rows = []
    for one, body in zip(passages, bodies, strict=True):
        rows.append(
            [
                body,
                best.get(one.id, 0.0),
                *(1 / rank[one.id] if one.id in rank else 0.0 for rank in ranks),
                _share(weight, words, held(one.searched)),
                _share(weight, set(terms(heading(one))), words),
                np.log(len(one.text)),
            ]
        )
    return passages, np.array(rows, float)


def heading(passage: Passage) -> str:
    """Return the last heading of a passage, the first words of one that has none."""
    return passage.context.rpartition(" > ")[2] or passage.text[:80]


def _share(weight: Callable[[str], float], words: Set[str], held: Set[str]) -> float:
    """The share of the words that are held, each weighted by how rare it is."""
    weights = {word: weight(word) for word in words}
    return sum(weights[word] for word in words & held) / sum(weights.values()) if words else 0.0


def _ordered(passages: Sequence[Passage], scores: NDArray[np.float64]) -> list[Found]:
    return [Found(passages[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")]


def _sure(
    index: Index, question: str, found: Sequence[Found], rows: NDArray[np.float64], roles: Collection[str]
) -> NDArray[np.float64]:
    """Return a row of `SURE`, from passages that the reader may read."""
    words, weight = set(terms(question)), index.words.weight
    bodies = [held(one.passage.searched) for one in found[:5]]
    total = sum(weight(word) for word in words) or 1.0
    best = max(float(index.words.scores(question, roles).max()), 0.0)
    second = found[1].score if len(found) > 1 else 0.0
    return np.array(
        [
            found[0].score,
            second,
            rows[:, 0].max(),
            _share(weight, words, bodies[0]),
            _share(weight, words, set().union(*bodies)),
            best / total,
        ]
    )


def train(index: Index, questions: Sequence[labels.Question], texts: Mapping[str, str]) -> Reranker:
    """Return a reranker that learned from these labelled questions; `texts` gives each document's text.

    The model of questions sees chances that the model of passages gives to questions it did not learn from: fivefold.
    """
    drawn = [(one, *candidates(index, one.question, one.roles)) for one in questions]
    marks = [
        np.array([one.id in retrieve.relevant(question, passages, dict(texts)) for one in passages])
        for question, passages, _ in drawn
    ]
    sure = np.zeros((len(drawn), len(SURE)))
    for fold in range(5):
        rest = [number for number in range(len(drawn)) if number % 5 != fold]
        model = _fit(
            np.concatenate([drawn[number][2] for number in rest]), np.concatenate([marks[number] for number in rest])
        )
        for number in range(fold, len(drawn), 5):
            question, passages, rows = drawn[number]
            found = _ordered(passages, model.predict_proba(rows)[:, 1])
            sure[number] = _sure(index, question.question, found, rows, question.roles)
    passage = _fit(np.concatenate([rows for _, _, rows in drawn]), np.concatenate(marks))
    return Reranker(passage, _fit(sure, np.array([question.answerable for question in questions])))


def _fit(rows: NDArray[np.float64], marks: NDArray[np.bool_]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, marks)
