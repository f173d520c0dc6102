"""The bank in the forms that instructors use: a printable paper with its key, GIFT, QTI and an Anki deck."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .bank import Question, html

LETTERS = "abcdefgh"


def shuffled(questions: Sequence[Question], seed: int) -> list[Question]:
    """Return the questions with options, they and their options in an order that the seed decides."""
    from dataclasses import replace

    draw = random.Random(seed)
    chosen = [one for one in questions if one.options]
    draw.shuffle(chosen)
    return [replace(one, options=tuple(draw.sample(one.options, len(one.options)))) for one in chosen]


def paper(questions: Sequence[Question], seed: int) -> tuple[str, str]:
    """Return a variant of a paper and its key, in Markdown."""
    sheet, key = [f"# Questions, variant {seed}\n"], [f"# Key, variant {seed}\n"]
    for number, one in enumerate(shuffled(questions, seed), 1):
        sheet.append(f"{number}. {one.stem}\n")
        sheet += [f"   - {LETTERS[place]}) {option.text}" for place, option in enumerate(one.options)]
        sheet.append("")
        letter = LETTERS[one.options.index(one.right)]
        key.append(f"{number}. **{letter}** ({one.objective}): {one.right.because}")
    return "\n".join(sheet), "\n".join(key) + "\n"


def gift(questions: Sequence[Question]) -> str:
    """Return the questions with options in Moodle's GIFT, with feedback for each option."""
    found = []
    for one in questions:
        if one.options:
            lines = [f"// {one.objective}, chapter {one.chapter}", f"::{one.id}::[markdown]{_escaped(one.stem)}{{"]
            for option in one.options:
                lines.append(f"{'=' if option.right else '~'}{_escaped(option.text)}#{_escaped(option.because)}")
            found.append("\n".join([*lines, "}"]))
    return "\n\n".join(found) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([~=#{}:\\])", r"\\\1", text)


def qti(questions: Sequence[Question], title: str) -> bytes:
    """Return a QTI 1.2 package, a zip, made by text2qti."""
    from text2qti.config import Config
    from text2qti.qti import QTI
    from text2qti.quiz import Quiz

    text = [f"Quiz title: {title}", "feedback is solution: true", ""]
    for number, one in enumerate((one for one in questions if one.options), 1):
        text.append(f"{number}. {one.stem}")
        for place, option in enumerate(one.options):
            text.append(f"{'*' if option.right else ''}{LETTERS[place]}) {option.text}")
            text.append(f"... {option.because}")
        text.append("")
    with contextlib.redirect_stdout(io.StringIO()):
        made = QTI(Quiz("\n".join(text[:1] + text[2:]), config=Config(), source_name="quiz"))
    packed = io.BytesIO()
    made.write(packed)
    assert zipfile.is_zipfile(packed)
    return packed.getvalue()


def anki(questions: Sequence[Question], title: str, file: Path) -> None:
    """Write an Anki deck, made by genanki: the question and its options in front, the right one and why on the back."""
    import genanki

    model = genanki.Model(
        1_607_392_319,
        "LLM Infrastructure",
        fields=[{"name": "Question"}, {"name": "Options"}, {"name": "Answer"}],
        templates=[
            {
                "name": "Card",
                "qfmt": "{{Question}}{{Options}}",
                "afmt": '{{FrontSide}}<hr id="answer">{{Answer}}',
            }
        ],
    )
    deck = genanki.Deck(int(hashlib.sha256(title.encode()).hexdigest()[:8], 16), title)
    for one in questions:
        if one.options:
            options = "<ul>" + "".join(f"<li>{html(option.text)}</li>" for option in one.options) + "</ul>"
            answer = f"<b>{html(one.right.text)}</b><br>{html(one.right.because)}"
            fields = [html(one.stem), options, answer]
            deck.add_note(genanki.Note(model=model, fields=fields, guid=genanki.guid_for(one.id), tags=[one.objective]))
    genanki.Package(deck).write_to_file(file)


def write(form: str, questions: Sequence[Question], name: str, folder: Path, variants: int = 1) -> None:
    """Write the questions in a form (paper, gift, qti or anki) into a folder, under a name; of a paper so many variants."""
    title = f"LLM Infrastructure, {name.replace('-', ' ')}"
    folder.mkdir(parents=True, exist_ok=True)
    if form == "paper":
        for variant in range(1, variants + 1):
            for part, text in zip(("paper", "key"), paper(questions, variant), strict=True):
                (folder / f"{name}-{part}-{variant}.md").write_text(text, encoding="utf-8")
    elif form == "gift":
        (folder / f"{name}.gift").write_text(gift(questions), encoding="utf-8")
    elif form == "qti":
        (folder / f"{name}.zip").write_bytes(qti(questions, title))
    else:
        anki(questions, title, folder / f"{name}.apkg")
