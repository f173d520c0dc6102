"""Step times from measured steps instead of a data sheet.

A step's time is taken as a sum: so much for the step itself, for each token, sample, pair and cached token, and something
more for each of the first few tokens, since a matrix kernel is slow until its rows are filled. These prices are fitted on
steps of a real engine; `step_time` hands them to the simulator.
"""

from . import tables

TERMS = ("step", "first", "tokens", "samples", "pairs", "cached")
FEW = 4
"""The tokens of a step that `first` counts. With it the decode steps of the CPU engine come out at every batch; without, at
two to four sequences they were predicted a fifth too short."""


def _counted(tokens: int, samples: int, pairs: float, cached: float) -> list:
    return [1, min(tokens, FEW), tokens, samples, pairs, cached]


def fit(steps: list) -> dict:
    """Return seconds per unit of each of `TERMS` that explain measured steps best.

    `steps` are (tokens, samples, pairs, cached, seconds), as the simulator counts them. The sum of the squares of the
    relative errors is least among prices that are not negative, found one price at a time, over and over (coordinate
    descent). Raises ValueError for fewer steps than terms, or a step without duration.
    """
    if len(steps) < len(TERMS):
        raise ValueError(f"{len(steps)} steps cannot price {len(TERMS)} terms")
    size = len(TERMS)
    rows = []
    for step in steps:
        seconds = tables.positive("a step's seconds", step[4])
        rows.append([value / seconds for value in _counted(*step[:4])])
    scale = [sum([row[i] * row[i] for row in rows]) ** 0.5 or 1.0 for i in range(size)]
    rows = [[row[i] / scale[i] for i in range(size)] for row in rows]
    normal = [[sum([row[i] * row[j] for row in rows]) for j in range(size)] for i in range(size)]
    right = [sum([row[i] for row in rows]) for i in range(size)]
    prices = [0.0] * size
    for _ in range(20000):
        moved = 0.0
        for i in range(size):
            if normal[i][i]:
                others = sum([normal[i][j] * prices[j] for j in range(size)]) - normal[i][i] * prices[i]
                price = max(0.0, (right[i] - others) / normal[i][i])
                moved = max(moved, abs(price - prices[i]))
                prices[i] = price
        if moved < 1e-10 * max(prices):
            break
    return {term: prices[i] / scale[i] for i, term in enumerate(TERMS)}


def step_time(prices: dict):
    """Return a function of (tokens, samples, pairs, cached) that gives a step's seconds, for the simulator."""
    each = [prices[term] for term in TERMS]

    def seconds(tokens: int, samples: int, pairs: float, cached: float) -> float:
        counted = _counted(tokens, samples, pairs, cached)
        return sum([price * value for price, value in zip(each, counted)])  # noqa: B905 - MicroPython has no `strict`

    return seconds


def residuals(steps: list, prices: dict) -> list:
    """Return the relative error of each step's predicted time: 0.1 means predicted 10 % too long."""
    seconds = step_time(prices)
    return [seconds(*step[:4]) / step[4] - 1 for step in steps]
