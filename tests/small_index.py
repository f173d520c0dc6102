"""Indexes for tests: in memory, of a few short documents, with an embedder that needs no model."""

import numpy as np

from llminfra import embed, stores
from llminfra.rag import corpus, index
from llminfra.rag.corpus import Document

WORDS = ["cache", "block", "adapter", "vector", "token", "prefill", "latency", "max_num_seqs", "the", "of", "a"]


def hashing(dimensions=32):
    """An embedder that needs no model: a text is the sum of its words' random vectors."""

    def encode(texts):
        rows = [
            sum(
                (np.random.default_rng(hash_of(word)).normal(size=dimensions) for word in text.lower().split()),
                np.ones(dimensions),
            )
            for text in texts
        ]
        return embed.unit(rows)

    return embed.Embedder(f"hashing-{dimensions}", dimensions, encode)


def hash_of(word):
    return int.from_bytes(word.encode()[:8].ljust(8), "big")


def small_index(*documents, **options):
    """An index that holds these documents; `options` are those of `index.Index`."""
    made = index.Index(stores.open_store("exact:", "small", 32), **({"embedder": hashing()} | options))
    if documents:
        made.update(documents)
    return made


def paper(name, body, *roles):
    return Document(name, f"# {name}\n\n{body}\n", frozenset(roles or {corpus.EVERYONE}))
