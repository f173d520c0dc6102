"""Drawings as strings of SVG: scales, axes, lines, bars, words. Their colours and type sizes are in widget.css.

A drawing is 640 units wide and as wide as its place on the page, so on a phone its units are half as large and its words
are set twice as large: leave them room.
"""

from math import floor, log10

from .markup import escape

WIDTH = 640
LEFT, RIGHT = 76, WIDTH - 20
"""Where the drawing area begins and ends, beside the figures of the vertical axis."""


def at(value: float) -> str:
    """Return a coordinate to a tenth of a unit, which is a tenth of a pixel or less."""
    tenths = floor(value * 10 + 0.5 + 1e-6)
    sign, tenths = ("-", -tenths) if tenths < 0 else ("", tenths)
    return f"{sign}{tenths // 10}.{tenths % 10}" if tenths % 10 else f"{sign}{tenths // 10}"


def linear(low: float, high: float, start: float, end: float):
    """Return the function that places a value from low to high between two coordinates."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float):
    """Return the function that places a value from low to high, both more than 0, on a logarithmic scale."""
    return lambda value: start + (log10(value) - log10(low)) / (log10(high) - log10(low)) * (end - start)


def steps(high: float, most: int = 5) -> list:
    """Return round values from 0 until the first that is not below `high`, at most so many after 0."""
    step = 10.0 ** floor(log10(high / most))
    for factor in (1, 2, 5, 10, 20):
        if factor * step * most >= high * (1 - 1e-9):
            step *= factor
            break
    found, number = [0.0], 0
    while found[-1] < high * (1 - 1e-9):
        number += 1
        found.append(number * step)
    return found


def decades(low: float, high: float) -> list:
    """Return the powers of ten from the last that is not above `low` to the first that is not below `high`."""
    first, last = floor(log10(low) + 1e-9), -floor(-log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def words(x: float, y: float, told: str, anchor: str = "start", kind: str = "") -> str:
    """Return a line of text whose start, middle or end is at x."""
    extra = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' class="{kind}"' if kind else "")
    return f'<text x="{at(x)}" y="{at(y)}"{extra}>{escape(told)}</text>'


def line(points: list, kind: str) -> str:
    """Return a line through points (x, y)."""
    return f'<path class="line {kind}" d="M' + "L".join([f"{at(x)} {at(y)}" for x, y in points]) + '"/>'


def area(points: list, kind: str) -> str:
    """Return the filled outline through points (x, y)."""
    return f'<path class="{kind}" d="M' + "L".join([f"{at(x)} {at(y)}" for x, y in points]) + 'Z"/>'


def boxes(rectangles: list, kind: str) -> str:
    """Return filled rectangles (x, y, width, height), all in one path."""
    drawn = [f"M{at(x)} {at(y)}h{at(w)}v{at(h)}h{at(-w)}z" for x, y, w, h in rectangles]
    return f'<path class="{kind}" d="{"".join(drawn)}"/>' if drawn else ""


def dot(x: float, y: float, kind: str, radius: float = 6) -> str:
    """Return a filled circle."""
    return f'<circle class="{kind}" cx="{at(x)}" cy="{at(y)}" r="{at(radius)}"/>'


def across(ticks: list, bottom: float, top: float, name: str) -> str:
    """Return the horizontal axis: (x, words) for each tick with a faint line up to `top`, and its name below."""
    drawn = line([(LEFT, bottom), (RIGHT, bottom)], "axis")
    for x, told in ticks:
        drawn += line([(x, bottom), (x, top)], "grid") + words(x, bottom + 24, told, "middle")
    return drawn + words((LEFT + RIGHT) / 2, bottom + 52, name, "middle")


def upward(ticks: list, name: str, top: float) -> str:
    """Return the vertical axis: (y, words) for each tick with a faint line to the right, and its name on top."""
    drawn = words(4, top - 16, name)
    for y, told in ticks:
        drawn += line([(LEFT, y), (RIGHT, y)], "grid") + words(LEFT - 8, y + 6, told, "end")
    return drawn


def drawing(height: float, title: str, description: str, parts: list) -> str:
    """Return the whole drawing; `description` tells its figures to who does not see it."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {at(height)}" width="{WIDTH}" height="{at(height)}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
