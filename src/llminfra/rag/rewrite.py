"""Change what is searched with: make a second turn stand alone, search with an invented answer, search again with what was found.

The model is given as `say`: chat messages in, its text out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from llminfra import embed
from llminfra.rag import rerank, retrieve
from llminfra.rag.retrieve import Asked, Found

Say = Callable[[list[dict[str, str]]], str]


def standalone(say: Say, turns: Sequence[str]) -> str:
    """Return the last turn as the model rewrites it to be understood without the others; as it is where the model says nothing."""
    ask = (
        "Rewrite the last question so that it can be understood without what was said before. Write the question alone."
    )
    said = say([{"role": "user", "content": "\n".join([*turns, "", ask])}])
    return " ".join(said.split()) or turns[-1]


def invented(say: Say, question: str) -> str:
    """Return an answer that the model makes up, in the style of what is searched."""
    ask = f"Write one sentence of a technical manual that answers this question: {question}"
    return " ".join(say([{"role": "user", "content": ask}]).split())


def hyde(asked: Asked, inventions: Sequence[str], limit: int = 10) -> list[Found]:
    """Return the passages nearest to the mean of the question's and the invented answers' embeddings (Gao et al. 2023)."""
    vectors = np.stack([asked.vector, *asked.index.embedder.query(inventions)])
    (mean,) = embed.unit(vectors.mean(0, keepdims=True))
    return retrieve.near(asked, mean, limit)


def multi_hop(asked: Asked, limit: int = 10, starts: int = 2) -> list[Found]:
    """Return the fusion of a hybrid search, which counts twice, and of one more for each of its first passages.

    The further searches ask the question together with the heading of such a passage.
    """
    first = retrieve.hybrid(asked, limit)
    questions = [f"{asked.question} {rerank.heading(one.passage)}" for one in first[:starts]]
    further = [retrieve.hybrid(replace(asked, question=question), limit) for question in questions]
    return retrieve.fuse([first, first, *further], limit)
