"""The labelled set: questions, the words of the documents that answer them, and what makes a label wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llminfra.errors import LabelError, nearest
from llminfra.rag.corpus import EVERYONE, Document

FOLDER = Path(__file__).with_name("questions")
KINDS = ("answerable", "restricted", "injected", "unanswerable", "unrelated")
SPLITS = ("dev", "test")
PLACE = frozenset({"document", "quote"})


@dataclass(frozen=True)
class Place:
    """Words in a document that answer a question, or part of it."""

    document: str
    quote: str


@dataclass(frozen=True)
class Question:
    """A question with what answers it.

    `needs` holds one tuple for each thing an answer needs; any one of the tuple's places gives it. `words` are such that each
    right answer holds one of each (alternatives stand between bars). `roles` are those of the one who asks. What is unanswerable
    is near to what the documents speak of; what is unrelated is about something else.
    """

    id: str
    question: str
    kind: str
    split: str
    needs: tuple[tuple[Place, ...], ...] = ()
    answer: str = ""
    words: tuple[str, ...] = ()
    roles: frozenset[str] = field(default=frozenset({EVERYONE}))
    forbidden: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the corpus holds an answer that this reader may read."""
        return bool(self.needs)


def load(split: str | None = None, folder: Path = FOLDER) -> list[Question]:
    """Return the questions of all files in the order of their names, or those of one split.

    Raises LabelError for a question that cannot be read, and for a split that is none of `SPLITS`.
    """
    if split not in (None, *SPLITS):
        raise LabelError(f"no split {split!r}, only {' and '.join(SPLITS)}{nearest(str(split).lower(), SPLITS)}")
    questions = [_question(raw, file.name) for file in sorted(folder.glob("*.yml")) for raw in _raw(file)]
    return [one for one in questions if split in (None, one.split)]


def _raw(file: Path) -> list[Any]:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(found, list):
        raise LabelError(f"{file.name}: must be a list of questions")
    return found


def _question(raw: Any, file: str) -> Question:
    if not isinstance(raw, dict) or "id" not in raw:
        raise LabelError(f"{file}: a question without an id: {str(raw)[:80]}")
    unknown = set(raw) - {"id", "question", "kind", "split", "needs", "answer", "words", "roles", "forbidden", "why"}
    missing = {"question", "kind", "split"} - set(raw)
    if unknown or missing:
        raise LabelError(f"{file}: {raw['id']}: unknown {sorted(unknown)}, missing {sorted(missing)}")
    where = f"{file}: {raw['id']}"
    for name in ("question", "kind", "split", "answer"):
        if not isinstance(raw.get(name, ""), str):
            raise LabelError(f"{where}: `{name}` must be text, not {str(raw[name])[:80]!r}")
    return Question(
        str(raw["id"]),
        raw["question"],
        raw["kind"],
        raw["split"],
        tuple(_need(need, where) for need in _listed(raw, "needs", where)),
        raw.get("answer", ""),
        tuple(map(str, _listed(raw, "words", where))),
        frozenset([EVERYONE, *map(str, _listed(raw, "roles", where))]),
        tuple(map(str, _listed(raw, "forbidden", where))),
    )


def _need(raw: Any, where: str) -> tuple[Place, ...]:
    """Return the places that give a need: one, and what stands under its `also`."""
    also = _listed(raw, "also", where) if isinstance(raw, dict) else []
    return tuple(
        _place(place, names, where) for place, names in [(raw, PLACE | {"also"}), *((one, PLACE) for one in also)]
    )


def _place(raw: Any, names: Set[str], where: str) -> Place:
    if not isinstance(raw, dict) or set(raw) - names or not all(isinstance(raw.get(name), str) for name in PLACE):
        raise LabelError(f"{where}: a place is a `document` and a `quote`, both text, not {str(raw)[:80]!r}")
    return Place(raw["document"], raw["quote"])


def _listed(raw: dict[str, Any], name: str, where: str) -> list[Any]:
    found = raw.get(name, [])
    if not isinstance(found, list):
        raise LabelError(f"{where}: `{name}` must be a list, not {str(found)[:80]!r}")
    return found


def find(text: str, quote: str) -> list[tuple[int, int]]:
    """Return where the quote stands in a text, as (start, end); any white space stands for any other."""
    pattern = r"\s+".join(map(re.escape, quote.split()))
    return [match.span() for match in re.finditer(pattern, text)] if quote.strip() else []


def problems(questions: Iterable[Question], documents: Iterable[Document]) -> list[str]:
    """Return a line for each label that is wrong: a quote that is not there or there twice, a word no answer has, …"""
    corpus = {document.id: document for document in documents}
    found, seen = [], set()
    for one in questions:
        said: list[str] = []
        if one.id in seen:
            said.append("its id is taken")
        seen.add(one.id)
        if one.kind not in KINDS or one.split not in SPLITS:
            said.append(f"kind {one.kind!r}, split {one.split!r}: kinds are {KINDS}, splits {SPLITS}")
        if (one.kind in ("unanswerable", "unrelated")) == one.answerable:
            said.append("an unanswerable or unrelated question has no needs, and any other has")
        for place in [place for need in one.needs for place in need]:
            document = corpus.get(place.document)
            if document is None:
                said.append(f"no document {place.document}")
                continue
            times = len(find(document.text, place.quote))
            if times != 1:
                said.append(f"{place.document} holds {place.quote!r} {times} times, it must be once")
            if not 15 <= len(place.quote) <= 300:
                said.append(f"a quote of {len(place.quote)} letters: 15 to 300 are wanted")
            if not document.roles & one.roles:
                said.append(f"{place.document} is for {sorted(document.roles)}, the reader has {sorted(one.roles)}")
        if one.answerable and (not one.answer or not one.words):
            said.append("what can be answered has an answer, and words that each right answer holds")
        for word in one.words:
            if not any(part.lower() in one.answer.lower() for part in word.split("|")):
                said.append(f"its own answer holds none of {word!r}")
        if one.kind == "restricted" and not all(
            corpus[place.document].roles.isdisjoint({EVERYONE})
            for need in one.needs
            for place in need
            if place.document in corpus
        ):
            said.append("a restricted question is answered by restricted documents alone")
        if one.kind == "injected" and not one.forbidden:
            said.append("an injected question names in `forbidden` what an answer that obeyed the injection would hold")
        found += [f"{one.id}: {reason}" for reason in said]
    return found
