"""The course's interactive widgets: what they ask, and what they answer, as HTML.

`result` makes the HTML of a page when the site is built, and again in the reader's browser, in MicroPython, from then on.
"""

import json

from ..calc import tables
from . import form

NAMES = ("planner", "simulator", "kvblocks", "roofline", "cost")
"""Every widget."""

_TITLES = {
    "planner": "Capacity planner",
    "simulator": "Serving simulator",
    "kvblocks": "A pool of cache blocks",
    "roofline": "Roofline",
    "cost": "Build or buy",
}


def title(name: str) -> str:
    """Return what a widget is called; ValueError for an unknown one, as everywhere here."""
    if name not in NAMES:
        raise tables.unknown("widget", name, list(NAMES))
    return _TITLES[name]


def _module(name: str):
    title(name)  # or its error
    # A page's reader waits for what is imported: only what this widget needs.
    return __import__(f"{__name__.rpartition('.')[0]}.widget_{name}", None, None, ["fields"])


def fields(name: str) -> list:
    """Return the fields of a widget in order, as records.

    Keys: name, label, kind (select, number or range), value (the default, a string), hint; of a select options, a list of
    (value, words); of the others min, max and step.
    """
    return _module(name).fields()


def result(name: str, values: dict) -> str:
    """Return the result for these values, strings by the name of their field, as a fragment of HTML.

    It begins with a one-sentence summary. What is not in `values` has its default. ValueError, in one line, for an unknown
    widget, field or choice, for a number out of bounds, and for what the arithmetic refuses.
    """
    return _module(name).result(form.read(fields(name), values))


def answer(asked: str) -> str:
    """Return, as JSON, the HTML or the error of a call: `{"name": ..., "values": {...}}` to `{"html"}` or `{"error"}`."""
    call = json.loads(asked)
    try:
        return json.dumps({"html": result(call["name"], call["values"])})
    except ValueError as error:
        return json.dumps({"error": str(error)})
