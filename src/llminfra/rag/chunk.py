"""Cut documents into passages: by length, at paragraphs, at headings, at turns of meaning."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llminfra import embed
from llminfra.rag.corpus import Document

Span = tuple[int, int]
SIZE = 180
"""Tokens of a passage, its context aside: MiniLM reads it in one piece unless the context is long, a prompt holds four."""
LETTERS = 8
"""Letters of a passage for each token of its size, at most: to MiniLM a word of more than 100 letters is one token."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document: `text` is document.text[start:end]; `context` says where it stands, for a passage alone does not."""

    document: str
    start: int
    end: int
    text: str
    context: str
    roles: frozenset[str]

    @property
    def id(self) -> str:
        """Its address: the document and the span of letters in it."""
        return f"{self.document}:{self.start}-{self.end}"

    @property
    def searched(self) -> str:
        """What is embedded and indexed."""
        return f"{self.context}\n{self.text}" if self.context else self.text


Chunker = Callable[[Document], list[Passage]]


def fixed(document: Document, size: int = SIZE, overlap: int = 30) -> list[Passage]:
    """Return windows of `size` tokens, each beginning `overlap` tokens before the last one ended."""
    if not 0 <= overlap < size:
        raise ValueError(f"overlap {overlap}: must be at least 0 and below the size, {size}")
    tokens = _tokens(document.text)
    firsts = range(0, max(len(tokens) - overlap, 1), size - overlap) if tokens else ()
    return [_passage(document, _reach(tokens, first, size), "") for first in firsts]


def recursive(document: Document, size: int = SIZE) -> list[Passage]:
    """Return pieces of at most `size` tokens, cut at empty lines where that is enough, else at lines, sentences, words."""
    spans = _split(document.text, (0, len(document.text)), size, _tokens(document.text))
    return [_passage(document, span, "") for span in spans]


def by_structure(document: Document, size: int = SIZE) -> list[Passage]:
    """Return a passage for each section, with the headings it stands under as its context; a long one is cut as in `recursive`."""
    passages = []
    tokens = _tokens(document.text)
    for path, span in _sections(document.text):
        context = " > ".join([document.id, *(words for words in path if words != document.id)])
        passages += [_passage(document, piece, context) for piece in _split(document.text, span, size, tokens)]
    return passages


def by_meaning(document: Document, embedder: embed.Embedder, size: int = SIZE, share: float = 0.25) -> list[Passage]:
    """Return runs of sentences, cut where neighbours are least alike: at the `share` of all gaps with the lowest cosine, and at `size`."""
    text, tokens, sentences = document.text, _tokens(document.text), _sentences(document)
    if len(sentences) < 3:
        return recursive(document, size)
    vectors = embedder(compared(document))
    alike = (vectors[:-1] * vectors[1:]).sum(1)
    bound = float(np.quantile(alike, share))
    runs = [[sentences[0]]]
    for sentence, cosine in zip(sentences[1:], alike, strict=True):
        if cosine < bound or _count(tokens, (runs[-1][0][0], sentence[1])) > size:
            runs.append([])
        runs[-1].append(sentence)
    spans = [piece for run in runs for piece in _split(text, (run[0][0], run[-1][1]), size, tokens)]
    return [_passage(document, span, "") for span in spans]


def compared(document: Document) -> list[str]:
    """Return the sentences of a document, which `by_meaning` embeds to see where to cut."""
    return [document.text[start:end] for start, end in _sentences(document)]


def _sentences(document: Document) -> list[Span]:
    text, tokens = document.text, _tokens(document.text)
    places = _pieces(text, (0, len(text)), r"(?<=[.!?:])\s+|\n\s*\n")
    return [span for span in places if _count(tokens, span) > 0]


def cut(documents: Sequence[Document], chunker: Chunker = by_structure) -> list[Passage]:
    """Return the passages of all documents in their order, without those that hold nothing but white space."""
    return [passage for document in documents for passage in chunker(document) if passage.text.strip()]


def _passage(document: Document, span: Span, context: str) -> Passage:
    start, end = span
    return Passage(document.id, start, end, document.text[start:end], context, document.roles)


def _sections(text: str) -> Iterator[tuple[list[str], Span]]:
    """Yield (headings, span of the body under them) for each section; lines in a fence are no headings.

    A fence ends at a line that holds nothing but the same signs, at least as many (CommonMark, section 4.5).
    """
    path: list[tuple[int, str]] = []
    begin, fence, at = 0, "", 0
    for line in text.splitlines(keepends=True):
        marks = re.match(r"\s*(```+|~~~+)([^`]*)$", line)
        if marks and not fence:
            fence = marks[1]
        elif marks and marks[1].startswith(fence) and not marks[2].strip():
            fence = ""
        head = None if fence else re.match(r"(#{1,4}) +(.+)", line)
        if head:
            if text[begin:at].strip():
                yield [words for _, words in path], (begin, at)
            path = [one for one in path if one[0] < len(head[1])] + [(len(head[1]), head[2].strip())]
            begin = at + len(line)
        at += len(line)
    if text[begin:].strip():
        yield [words for _, words in path], (begin, len(text))


SEPARATORS = (r"\n\s*\n", r"\n", r"(?<=[.!?;])\s+", r"\s+")


def _split(
    text: str, span: Span, size: int, tokens: Sequence[Span], separators: Sequence[str] = SEPARATORS
) -> list[Span]:
    """Return spans of at most `size` tokens that cover the words of `span`, cut at the first separator that does."""
    start, end = _trim(text, span)
    if start >= end:
        return []
    if _fits(tokens, (start, end), size):
        return [(start, end)]
    if not separators:  # one word longer than a passage: a letter is a token at most
        return [(at, min(at + size, end)) for at in range(start, end, size)]
    spans: list[Span] = []
    for piece in _pieces(text, (start, end), separators[0]):
        if not _fits(tokens, piece, size):
            spans += _split(text, piece, size, tokens, separators[1:])
        elif spans and _fits(tokens, (spans[-1][0], piece[1]), size):
            spans[-1] = (spans[-1][0], piece[1])
        else:
            spans.append(piece)
    return spans


def _pieces(text: str, span: Span, separator: str) -> list[Span]:
    start, end = span
    cuts = [match.span() for match in re.compile(separator).finditer(text, start, end)]
    bounds = [start, *(edge for pair in cuts for edge in pair), end]
    return [
        trimmed
        for trimmed in (_trim(text, pair) for pair in zip(bounds[::2], bounds[1::2], strict=True))
        if trimmed[0] < trimmed[1]
    ]


def _trim(text: str, span: Span) -> Span:
    start, end = span
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - (
        len(inside) - len(inside.rstrip())
    ) if inside.strip() else start


def _tokens(text: str) -> list[Span]:
    """Return where each token of the text stands."""
    return list(embed.tokenizer().encode(text, add_special_tokens=False).offsets)


def _between(tokens: Sequence[Span], span: Span) -> Span:
    """Return the numbers of the first token that begins in a span, and of the first after it."""
    return bisect_left(tokens, (span[0],)), bisect_left(tokens, (span[1],))


def _count(tokens: Sequence[Span], span: Span) -> int:
    first, last = _between(tokens, span)
    return last - first


def _fits(tokens: Sequence[Span], span: Span, size: int) -> bool:
    return _count(tokens, span) <= size and span[1] - span[0] <= LETTERS * size


def _reach(tokens: Sequence[Span], first: int, size: int) -> Span:
    """Return the span of `size` tokens, or of those that are left."""
    return tokens[first][0], tokens[min(first + size, len(tokens)) - 1][1]
