"""Requests to simulate: when they arrive, how long prompt and output are, and what they share.

Lengths of the two Azure traces are drawn in pairs. In the conversation trace the length of a prompt tells much about that of
its answer (prompts of 1,000 to 1,200 tokens have a median answer of about 400, most others one of 60 to 160), although the
rank correlation is near zero, since the answer neither rises nor falls with the prompt all the way.
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
    """Return a workload's record: title, percentiles, prompt, output (tokens at each), requests, rate_per_s, gap_cv, bins.

    gap_cv is the coefficient of variation of the gaps between arrivals: 1 is Poisson traffic, more is burstier. `bins` are
    ranges of prompt length, each with its share of the requests and the quantiles of the prompts and of the outputs in it
    (`bin_quantiles` says which quantiles); `pairs` draws from them. The percentiles describe one length at a time. Beside
    them source, url and read. Raises ValueError for an unknown name.
    """
    table = tables.read("workloads")
    if name not in table["workloads"]:
        raise tables.unknown("workload", name, workloads())
    record = dict(table["workloads"][name])
    source = table["sources"][record["source"]]
    record.update({"percentiles": table["percentiles"], "bin_quantiles": table["bin_quantiles"]})
    record.update({"source": source["title"], "url": source["url"]})
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

    `kind` is a number (always so many), a workload's name (its `which`, prompt or output, by itself), ("exponential", mean) or
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


def pairs(name: str):
    """Return a function of a generator that draws a request's (prompt, output) in tokens as they occur together in a trace.

    A bin of prompt lengths is chosen by its share, then both lengths are read off between the quantiles of that bin. Against the
    raw conversation trace this gives a mean prompt of 1,163 tokens (1,155 there), a mean output of 211.2 (211.1), and a total
    at 1, 50 and 99 % of 160, 1,563 and 4,282 (132, 1,558 and 4,259). Raises ValueError for an unknown workload.
    """
    record = known(name)
    bins = record["bins"]
    of_prompt = [100 * share for share in record["bin_quantiles"]["prompt"]]
    of_output = [100 * share for share in record["bin_quantiles"]["output"]]

    def drawn(draw) -> tuple:
        left, place = draw.random() - bins[0][0], 0
        while left > 0 and place < len(bins) - 1:
            place += 1
            left -= bins[place][0]
        prompt = quantile(of_prompt, bins[place][1], draw.random())
        output = quantile(of_output, bins[place][2], draw.random())
        return max(1, int(prompt + 0.5)), max(1, int(output + 0.5))

    return drawn


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

    Lengths are as for `lengths`, each drawn by itself; with `output` None, `prompt` names a workload whose `pairs` are drawn, or
    describes both. `rate_per_s` is the mean arrival
    rate, None for all at once; the gaps between arrivals are constant for `gap_cv` 0, exponential for 1 (Poisson), and for
    more a mixture of short and long exponential ones with that coefficient of variation. With `groups`, each
    prompt begins with `shared` tokens (its length at most) of one of so many prefixes, each as likely. An `urgent_share`
    of the requests has priority 0, the rest 1.
    """
    tables.whole("count", count)
    tables.not_negative("gap_cv", gap_cv)
    draw = rng.Random(seed)
    if output is None and isinstance(prompt, str):
        draw_both = pairs(prompt)
    else:
        draw_prompt = lengths(prompt, "prompt")
        draw_output = lengths(prompt if output is None else output, "output")

        def draw_both(draw) -> tuple:
            tokens = draw_prompt(draw)
            return tokens, draw_output(draw)

    if rate_per_s is not None:
        tables.positive("rate_per_s", rate_per_s)
    if 0 < gap_cv < 1:
        raise ValueError(f"gap_cv must be 0 or at least 1, not {gap_cv!r}")
    # Two exponential phases with balanced means (Tijms 1994): squared variation c2 = 1 gives one exponential.
    c2 = gap_cv * gap_cv
    often = (1 + math.sqrt((c2 - 1) / (c2 + 1))) / 2 if gap_cv >= 1 else 0.0
    made, clock = [], 0.0
    for _ in range(count):
        tokens, answer = draw_both(draw)
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
