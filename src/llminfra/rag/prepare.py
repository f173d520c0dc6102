"""Embed once what the chapters search: `make data`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace

from llminfra import embed, models
from llminfra.rag import chunk, corpus
from llminfra.rag.corpus import Document
from llminfra.rag.judgments import labels

COMPARED = (
    "vllm/config/cache.py",
    "vllm/config/lora.py",
    "vllm/config/parallel.py",
    "vllm/config/scheduler.py",
)
"""The documents of packages in the subset on which ways of cutting are compared: each way embeds everything again."""


def subset(documents: Sequence[Document]) -> list[Document]:
    """Return the documents on which ways of cutting are compared: the company's, and `COMPARED`."""
    return [one for one in documents if one.id.startswith("company/") or one.id in COMPARED]


def short(documents: Sequence[Document]) -> list[Document]:
    """Return the documents on which embedding models are compared: the company's, without the long ones."""
    return [one for one in documents if one.id.startswith("company/") and len(one.text) < 3000]


def by_meaning(document: Document) -> list[chunk.Passage]:
    """Cut by meaning, as MiniLM sees it."""
    return chunk.by_meaning(document, embed.minilm())


def addressed(document: Document) -> list[chunk.Passage]:
    """Cut into fixed windows, each with its document's address as its context."""
    return [replace(passage, context=document.id) for passage in chunk.fixed(document)]


def bare(document: Document) -> list[chunk.Passage]:
    """Cut by structure, and take the headings away again."""
    return [replace(passage, context="") for passage in chunk.by_structure(document)]


WAYS = (chunk.fixed, chunk.recursive, by_meaning, chunk.by_structure, bare, addressed)


def main() -> None:
    """Compute every embedding that a chapter needs and the cache does not hold, one thread for each core."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once; what is finished is in the cache
    begin = time.monotonic()
    workers = len(os.sched_getaffinity(0))
    documents = [*corpus.packages(), *corpus.company()]
    passages, few = chunk.cut(documents), searched(chunk.cut(short(documents)))
    minilm = embed.minilm()
    first = [(minilm, searched(passages)), (minilm, [one.question for one in labels.load()])]
    first += [(minilm, chunk.compared(one)) for one in subset(documents)]  # between them `by_meaning` cuts
    first += [(embed.minilm_int8(), few), (embed.mean_states(models.ready("cpu")), few)]
    embed.keep(first, workers)
    embed.keep([(minilm, searched(chunk.cut(subset(documents), way))) for way in WAYS], workers)
    print(f"{len(passages)} passages of {len(documents)} documents are embedded ({time.monotonic() - begin:.0f} s)")


def searched(passages: Sequence[chunk.Passage]) -> list[str]:
    """Return what is embedded of these passages."""
    return [one.searched for one in passages]


if __name__ == "__main__":
    main()
