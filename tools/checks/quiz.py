"""What the question bank must keep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

from checks import engine_cli, formats
from llminfra.quiz.bank import Parsons, Question

AT_LEAST = 8
"""Questions of a chapter."""
DEEPER = 0.6
"""Share of questions that ask to apply or to analyse."""
CALCULATED = 1 / 3
LONGEST = 0.35
"""Share of questions whose right option may be the longest."""
CATCH_ALL = re.compile(r"\b(all|none|both) of the (above|others)\b", re.I)
LETTERS = re.compile(r"\b(?:option|answer|choice)s? [A-D1-4]\b|^[A-D]\b[.:)]", re.I)
USES, KINDS = ("check", "module"), ("recall", "apply", "analyse")


def problems(
    questions: Sequence[Question], anchors: Mapping[int, Collection[str]], objectives: Mapping[int, Collection[str]]
) -> list[str]:
    """Return what is wrong with the bank; `anchors` and `objectives` are those of each written chapter."""
    found = [f"{one.id}: {said}" for one in questions for said in _alone(one, anchors)]
    for name, values in (("id", [one.id for one in questions]), ("stem", [one.stem for one in questions])):
        found += [f"two questions have the {name} {value!r}" for value, count in Counter(values).items() if count > 1]
    for chapter in anchors:
        own = [one for one in questions if one.chapter == chapter]
        if len(own) < AT_LEAST:
            found.append(f"chapter {chapter} has {len(own)} questions, and needs {AT_LEAST}")
        found += [f"chapter {chapter} has no question for {use}" for use in USES if use not in {one.use for one in own}]
    taught = {objective for chapter in objectives for objective in objectives[chapter]}
    found += [
        f"nothing is asked about objective {one}" for one in sorted(taught - {one.objective for one in questions})
    ]
    deeper = sum(one.kind != "recall" for one in questions)
    if deeper < DEEPER * len(questions):
        found.append(f"{deeper} of {len(questions)} questions ask to apply or to analyse: fewer than {DEEPER:.0%}")
    calculated = sum(bool(one.numbers) for one in questions)
    if calculated < CALCULATED * len(questions):
        found.append(f"{calculated} of {len(questions)} questions need a calculation: fewer than a third")
    return found + _shape([one for one in questions if one.options])


def _shape(questions: Sequence[Question]) -> list[str]:
    """Return what gives right options away."""
    longest = [one.id for one in questions if _right_is_longest(one)]
    found = []
    if len(longest) > LONGEST * len(questions):
        found.append(f"the right option is the longest in {len(longest)} of {len(questions)}: {', '.join(longest)}")
    places = Counter([option.right for option in one.options].index(True) for one in questions if _rights(one))
    for place in range(max(len(one.options) for one in questions) if questions else 0):
        fair = sum(1 / len(one.options) for one in questions if len(one.options) > place)
        if not 0.6 * fair <= places[place] <= 1.4 * fair:
            found.append(
                f"the right option is number {place + 1} in {places[place]} questions; {fair:.0f} would be even"
            )
    return found


def _rights(one: Question) -> int:
    return sum(option.right for option in one.options)


def _right_is_longest(one: Question) -> bool:
    lengths = [len(option.text) for option in one.options]
    return bool(_rights(one)) and len(one.right.text) == max(lengths) > sorted(lengths)[-2]


def _alone(one: Question, anchors: Mapping[int, Collection[str]]) -> list[str]:
    found = []
    if one.section not in anchors.get(one.chapter, ()):
        found.append(f"chapter {one.chapter} has no section {one.section!r} to be asked after")
    if one.use not in USES or one.kind not in KINDS:
        found.append(f"use must be one of {', '.join(USES)}, and kind one of {', '.join(KINDS)}")
    if not one.source:
        found.append("it has no source")
    texts = [one.stem, *(text for option in one.options for text in (option.text, option.because))]
    found += [
        f"{text!r} refers to options by letter or number, which are shuffled" for text in texts if LETTERS.search(text)
    ]
    if one.parsons:
        return found + _ordered(one.parsons)
    if len(one.options) not in (3, 4):
        found.append(f"it has {len(one.options)} options; three or four are wanted")
    if _rights(one) != 1:
        found.append(f"{_rights(one)} of its options are right; one must be")
        return found
    shown = [option.text.strip().lower() for option in one.options]
    found += [f"two options are {text!r}" for text, count in Counter(shown).items() if count > 1]
    found += [f"{option.text!r} is no option" for option in one.options if CATCH_ALL.search(option.text)]
    found += [f"{option.text!r} says no why" for option in one.options if len(option.because.split()) < 5]
    if one.numbers:
        wrong = [option for option in one.options if not option.right]
        found += [f"{option.text!r} names no mistake that leads to it" for option in wrong if not option.mistake]
    return found


def _ordered(item: Parsons) -> list[str]:
    """Return what the real parser says against the right order, and for which wrong line or order it says nothing."""
    read = PARSERS.get(item.parser)
    if read is None:
        return [f"no parser is called {item.parser!r}; there are {', '.join(PARSERS)}"]
    found = [f"{item.parser} refuses the right order: {said}" for said in read(item.lines)[:1]]
    for line in item.distractors:
        for place in range(1, len(item.lines)):
            if not read((*item.lines[:place], line, *item.lines[place + 1 :])):
                found.append(f"{item.parser} accepts {line!r} in place of {item.lines[place]!r}")
    if not item.distractors:
        found.append("no line is there that doesn't belong")
    found += [f"{one!r} comes twice" for one, next_one in pairwise(sorted(item.lines)) if one == next_one]
    return found


def _vllm(lines: Sequence[str]) -> list[str]:
    words = " ".join(lines).split()
    if words[:2] != ["vllm", "serve"]:
        return ["it does not begin with vllm serve"]
    try:
        engine_cli.check_serve_args(words[2:])
    except engine_cli.BadArgs as error:
        return [str(error)]
    return []


def _kubernetes(lines: Sequence[str]) -> list[str]:
    return [str(fault) for fault in formats.yaml_text("\n".join(lines) + "\n")]


PARSERS: dict[str, Callable[[Sequence[str]], list[str]]] = {"vllm": _vllm, "kubernetes": _kubernetes}
