"""Figures as text, and the pieces of HTML that widgets are made of: the same letters in CPython and MicroPython.

The two round halves differently when they format, and may differ in the last bit of a logarithm, so figures are rounded
here: half up, and what is within 1e-12 of a half counts as one.
"""


def escape(words: str) -> str:
    """Return text for HTML, in an element or in an attribute with double quotes."""
    return str(words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def fixed(value: float, places: int = 0) -> str:
    """Return a number with so many decimal places and commas between thousands: 1,234.50."""
    unit = 10**places
    scaled = abs(value) * unit if isinstance(value, int) else int(abs(value) * unit * (1 + 1e-12) + 0.5)
    digits = str(scaled // unit)
    groups: list = []
    while len(digits) > 3:
        digits, groups = digits[:-3], [digits[-3:]] + groups
    told = ",".join([digits] + groups)
    if places:
        told += "." + str(unit + scaled % unit)[1:]
    return "-" + told if value < 0 and scaled else told


def figure(value: float) -> str:
    """Return a number with three significant digits at least, and all of those before the point."""
    if isinstance(value, int):
        return fixed(value)
    size, places = abs(value) * (1 + 1e-12), 0
    while size and size * 10**places < 99.95 and places < 8:
        places += 1
    return fixed(value, places)


def seconds(value: float) -> str:
    """Return a time with its unit: 33.7 ms, 1.25 s."""
    return figure(value * 1000) + " ms" if value < 1 else figure(value) + " s"


def size(value: float) -> str:
    """Return an amount of bytes with its decimal unit: 57.3 kB, 15.2 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return figure(value / unit) + " " + name
    return fixed(value) + " bytes"


def count(value: float) -> str:
    """Return a large number in words that an axis has room for: 500, 20k, 3M, 1B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return trimmed(value / unit) + name
    return trimmed(value)


def trimmed(value: float) -> str:
    """Return a number as `figure` does, without zeros at its end: 0.5, 20."""
    told = figure(value)
    return told.rstrip("0").rstrip(".") if "." in told else told


def usd(value: float) -> str:
    """Return dollars: cents below a thousand, tenths of a cent below ten cents."""
    return "$" + fixed(value, 0 if value >= 1000 else 3 if 0 < value < 0.1 else 2)


def table(caption: str, heads: list, rows: list, chosen: "int | None" = None) -> str:
    """Return a table that scrolls by itself; of each row the first cell is its head. All cells are text.

    A row that is too short has words in its last cell, over all columns that are left. `chosen` is the number of the row
    that stands out.
    """
    top = "".join([f'<th scope="col">{escape(head)}</th>' for head in heads])
    body = ""
    for number, row in enumerate(rows):
        left = len(heads) - len(row) + 1
        span = f' colspan="{left}" class="words"' if left > 1 else ""
        cells = "".join([f"<td{span}>{escape(cell)}</td>" for cell in row[1:]])
        mark = ' class="chosen"' if number == chosen else ""
        body += f'<tr{mark}><th scope="row">{escape(row[0])}</th>{cells}</tr>'
    name = escape(caption)
    return (
        f'<div class="widget-scroll" tabindex="0" role="group" aria-label="Table: {name}"><table>'
        f"<caption><span>{name}</span></caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def definitions(pairs: list) -> str:
    """Return the main figures: a list of (what, figure) or (what, figure, remark)."""
    told = ""
    for pair in pairs:
        remark = f"<small>{escape(pair[2])}</small>" if len(pair) > 2 and pair[2] else ""
        told += f"<div><dt>{escape(pair[0])}</dt><dd>{escape(pair[1])}{remark}</dd></div>"
    return f'<dl class="widget-figures simple">{told}</dl>'


def summary(words: str) -> str:
    """Return the sentence that a result begins with, and that a screen reader is told when the result changes."""
    return f'<p class="widget-summary" role="status">{escape(words)}</p>'


def note(words: str) -> str:
    """Return what a result leaves out or takes for granted, to stand below it."""
    return f'<p class="widget-note">{escape(words)}</p>'


def legend(entries: list) -> str:
    """Return the key of a drawing: a list of (class of the mark, words)."""
    told = "".join([f'<li><i class="mark {kind}"></i>{escape(words)}</li>' for kind, words in entries])
    return f'<ul class="widget-legend">{told}</ul>'
