"""The interface that the brief states, and nothing else."""

from __future__ import annotations

import answers
import index
from passages import Passage, cut

K = 5


def passages(document: dict) -> list[dict]:
    """Return a document's passages, in order: {heading, text}."""
    return [{"heading": one.heading, "text": one.text} for one in cut(document["id"], document["text"])]


def ingest(config: dict, documents: list[dict]) -> dict:
    """Make the index that of these documents, [{id, text, roles}], and return {passages, embedded}."""
    return index.update(config, documents)


def search(config: dict, questions: list[str], roles: list[str], k: int) -> list[list[dict]]:
    """Return for each question the k best passages that these roles may read, best first: {document, heading, text}."""
    found = index.find(config, questions, roles, k)
    return [[_shown(passage) for passage, _ in one] for one in found]


def answer(config: dict, questions: list[str], roles: list[str]) -> list[dict]:
    """Return for each question {answer, citations, refused}; citations are passages, {document, heading, text}."""
    # solution R6, R8
    # starter: raise NotImplementedError
    given = []
    for question, found in zip(questions, index.find(config, questions, roles, K), strict=True):
        said, cited = "", []
        if max((cosine for _, cosine in found), default=0) >= answers.NEAR:
            messages, shown = answers.prompt(question, [passage for passage, _ in found], config["prompt_words"])
            said, cited = answers.grounded(answers.ask(config, messages), shown)
        given.append({"answer": said, "citations": [_shown(one) for one in cited], "refused": not cited})
    return given
    # end solution


def evaluate(found: dict[str, list[str]], relevant: dict[str, list[str]], k: int) -> dict[str, float]:
    """Return the means over the questions in `relevant` of recall@k and of the reciprocal rank within k: {recall, mrr}."""
    # solution R12
    # starter: raise NotImplementedError
    recalls, ranks = [], []
    for question, wanted in relevant.items():
        best = found.get(question, [])[:k]
        recalls.append(len(set(best) & set(wanted)) / len(set(wanted)))
        ranks.append(next((1 / place for place, one in enumerate(best, 1) if one in wanted), 0.0))
    return {"recall": sum(recalls) / len(recalls), "mrr": sum(ranks) / len(ranks)}
    # end solution


def _shown(passage: Passage) -> dict:
    return {"document": passage.document, "heading": passage.heading, "text": passage.text}
