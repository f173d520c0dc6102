"""Train the reranker on labelled questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llminfra.rag import rerank, retrieve
from llminfra.rag.chunk import Passage
from llminfra.rag.index import Index
from llminfra.rag.judgments import labels, relevance

FOLDS = 5


@dataclass(frozen=True)
class Drawn:
    """A question with its candidates: `rows` holds their features, `marks` which of them are relevant."""

    asked: retrieve.Asked
    passages: list[Passage]
    rows: NDArray[np.float64]
    marks: NDArray[np.bool_]


def train(index: Index, questions: Sequence[labels.Question], texts: Mapping[str, str]) -> rerank.Reranker:
    """Return a reranker that learned from these labelled questions; `texts` gives each document's text.

    The model of questions sees chances that the model of passages gives to questions it did not learn from: fivefold.
    """
    drawn = [_drawn(index, question, texts) for question in questions]
    sure = np.zeros((len(drawn), len(rerank.SURE)))
    for fold in range(FOLDS):
        model = _of_passages(one for number, one in enumerate(drawn) if number % FOLDS != fold)
        for number in range(fold, len(drawn), FOLDS):
            one = drawn[number]
            found = rerank.ordered(one.passages, model.predict_proba(one.rows)[:, 1])
            sure[number] = rerank.evidence(one.asked, found, one.rows)
    answerable = np.array([question.answerable for question in questions])
    return rerank.Reranker(_of_passages(drawn), _fit(sure, answerable))


def _drawn(index: Index, question: labels.Question, texts: Mapping[str, str]) -> Drawn:
    asked = retrieve.ask(index, question.question, question.roles)
    passages, rows = rerank.candidates(asked)
    relevant = relevance.relevant(question, passages, texts)
    return Drawn(asked, passages, rows, np.array([one.id in relevant for one in passages]))


def _of_passages(drawn: Iterable[Drawn]) -> Any:
    drawn = list(drawn)
    return _fit(np.concatenate([one.rows for one in drawn]), np.concatenate([one.marks for one in drawn]))


def _fit(rows: NDArray[np.float64], marks: NDArray[np.bool_]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, marks)
