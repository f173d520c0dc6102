"""Which passages are relevant to a labelled question, and how much of what it needs a search found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from llminfra.rag.chunk import Passage
from llminfra.rag.judgments import labels


def relevant(question: labels.Question, passages: Iterable[Passage], texts: Mapping[str, str]) -> dict[str, int]:
    """Return {passage id: 1} for each passage that holds at least half of the words of a place that answers the question.

    `texts` gives each document's text. Half is enough, because a chunker may cut through a quote.
    """
    wanted = defaultdict(list)
    for need in question.needs:
        for place in need:
            for span in labels.find(texts[place.document], place.quote):
                wanted[place.document].append(span)
    return {one.id: 1 for one in passages if any(_holds(one, span) for span in wanted.get(one.document, ()))}


def covered(question: labels.Question, found: Iterable[Passage], texts: Mapping[str, str]) -> float:
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
