"""Metrics of ranked lists, and intervals for means and for differences of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from scipy.stats import binomtest

MEASURES = ("nDCG@10", "R@1", "R@5", "R@10", "RR@10")


@dataclass(frozen=True)
class Interval:
    """A mean over questions and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def ranked(
    relevant: Mapping[str, Mapping[str, int]], found: Mapping[str, Sequence[str]], measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Return {measure: {question: value}} by ir-measures, whose names the measures are; what was not found counts 0.

    `relevant` gives the grade of each relevant passage of each question, `found` the passages in their order, best first.
    """
    qrels = {question: dict(grades) for question, grades in relevant.items()}
    run = {question: {one: -float(place) for place, one in enumerate(order)} for question, order in found.items()}
    parsed = [ir_measures.parse_measure(name) for name in measures]
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    for one in ir_measures.iter_calc(parsed, qrels, run):
        values[str(one.measure)][one.query_id] = one.value
    return values


def interval(values: Sequence[float] | Mapping[str, float], draws: int = 2000, seed: int = 0) -> Interval:
    """Return the mean and its 95 % percentile bootstrap interval (Efron 1979), questions drawn with replacement.

    Raises ValueError where there is nothing to draw from.
    """
    numbers = np.array(list(values.values()) if isinstance(values, Mapping) else list(values), float)
    if not len(numbers):
        raise ValueError("an interval needs at least one value")
    means = numbers[np.random.default_rng(seed).integers(0, len(numbers), (draws, len(numbers)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(numbers.mean()), float(low), float(high))


def share(values: Sequence[bool]) -> Interval:
    """Return the share of true values and its 95 % interval by Wilson (1927), which holds near 0 and 1 and for few values too.

    Raises ValueError where there is none.
    """
    count = len(values)
    if not count:
        raise ValueError("a share needs at least one value")
    yes = sum(map(bool, values))
    bounds = binomtest(yes, count).proportion_ci(method="wilson")
    return Interval(yes / count, float(bounds.low), float(bounds.high))


def difference(first: Mapping[str, float], second: Mapping[str, float], draws: int = 2000, seed: int = 0) -> Interval:
    """Return by how much `first` exceeds `second`, question by question, with its interval: the same questions in both.

    Raises ValueError where the questions differ.
    """
    if first.keys() != second.keys():
        raise ValueError("the two were not asked the same questions")
    return interval({question: first[question] - second[question] for question in first}, draws, seed)
