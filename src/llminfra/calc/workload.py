"""Requests to simulate: when they arrive, how long prompt and output are, and what they share.

Lengths of the two Azure traces are drawn from their published percentiles, prompt and output apart: in the traces the two
are as good as independent (rank correlation 0.07 and -0.02).
"""

import math
from collections import namedtuple

from . import rng, tables

Request = namedtuple("Request", ("arrival_ns", "prompt", "output", "priority", "group", "shared"))
"""arrival_ns: whole nanoseconds after the start; prompt, output: tokens; priority: lower goes first; group: what the first
`shared` tokens of the prompt have in common with other requests (-1: nothing)."""


def workloads() -> list:
    """Return the names of the known workloads."""
    return sorted(tables.read("workloads")["workloads"])


def known(name: str) -> dict:
    """Return a workload's record: title, percentiles, prompt, output (tokens at each), requests, rate_per_s, gap_cv.

    gap_cv is the coefficient of variation of the gaps between arrivals: 1 is Poisson traffic, more is burstier. Beside
    them source, url and read. Raises ValueError for an unknown name.
    """
    table = tables.read("workloads")
    if name not in table["workloads"]:
        raise tables.unknown("workload", name, workloads())
    record = dict(table["workloads"][name])
    source = table["sources"][record["source"]]
    record.update({"percentiles": table["percentiles"], "source": source["title"], "url": source["url"]})
    record["read"] = source["read"]
    return record


def quantile(percentiles: list, values: list, share: float) -> float:
    """Return the value below which a `share` (0 to 1) lies, read off between the percentiles in a straight line."""
    for i in range(len(percentiles) - 1):
        if share * 100 <= percentiles[i + 1]:
            part = (share * 100 - percentiles[i]) / (percentiles[i + 1] - percentiles[i])
            return values[i] + (values[i + 1] - values[i]) * part
    return values[-1]


def lengths(kind: "int | str | tuple", which: str = "output"):
    """Return a function of a generator that draws a length in tokens, at least 1.

    `kind` is a number (always so many), a workload's name (its `which`: prompt or output), ("exponential", mean) or
    ("exponential", mean, longest), cut there. Raises ValueError for anything else.
    """
    if which not in ("prompt", "output"):
        raise tables.unknown("kind of length", which, ["prompt", "output"])
    if isinstance(kind, str):
        record = known(kind)
        points, values = record["percentiles"], record[which]
        return lambda draw: max(1, int(quantile(points, values, draw.random())))
    if isinstance(kind, (tuple, list)):
        if len(kind) not in (2, 3) or kind[0] != "exponential":
            raise ValueError(f"lengths are a number, a workload or (exponential, mean, longest), not {kind!r}")
        mean = tables.positive("the mean length", kind[1])
        longest = kind[2] if len(kind) == 3 else 1 << 30
        return lambda draw: max(1, min(longest, int(draw.exponential(mean) + 0.5)))
    always = tables.whole(which, kind)
    return lambda draw: always


def requests(
    count: int,
    prompt: "int | str | tuple" = "conversation",
    output: "int | str | tuple | None" = None,
    rate_per_s: "float | None" = None,
    gap_cv: float = 1.0,
    seed: int = 0,
    groups: int = 0,
    shared: int = 0,
    urgent_share: float = 0.0,
) -> list:
    """Return `count` requests in order of arrival; the same seed gives the same ones.

    Lengths are as for `lengths`; `output` None means the workload that `prompt` names. `rate_per_s` is the mean arrival
    rate, None for all at once; the gaps between arrivals are constant for `gap_cv` 0, exponential for 1 (Poisson), and for
    more a mixture of short and long exponential ones with that coefficient of variation. With `groups`, each
    prompt begins with `shared` tokens (its length at most) of one of so many prefixes, each as likely. An `urgent_share`
    of the requests has priority 0, the rest 1.
    """
    tables.whole("count", count)
    tables.not_negative("gap_cv", gap_cv)
    draw = rng.Random(seed)
    draw_prompt = lengths(prompt, "prompt")
    draw_output = lengths(prompt if output is None else output, "output")
    if rate_per_s is not None:
        tables.positive("rate_per_s", rate_per_s)
    if 0 < gap_cv < 1:
        raise ValueError(f"gap_cv must be 0 or at least 1, not {gap_cv!r}")
    # Two exponential phases with balanced means (Tijms 1994): squared variation c2 = 1 gives one exponential.
    c2 = gap_cv * gap_cv
    often = (1 + math.sqrt((c2 - 1) / (c2 + 1))) / 2 if gap_cv >= 1 else 0.0
    made, clock = [], 0.0
    for _ in range(count):
        tokens = draw_prompt(draw)
        answer = draw_output(draw)
        group = draw.below(groups) if groups else -1
        priority = 0 if urgent_share and draw.random() < urgent_share else 1
        if rate_per_s is not None:
            if gap_cv == 0:
                clock += 1 / rate_per_s
            else:
                share = often if draw.random() < often else 1 - often
                clock += (
                    draw.exponential(1 / (2 * share * rate_per_s)) if gap_cv > 1 else draw.exponential(1 / rate_per_s)
                )
        made.append(Request(int(clock * 1e9), tokens, answer, priority, group, min(shared, tokens) if groups else 0))
    return made
