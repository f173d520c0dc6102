"""Measures of a ranking, and how sure they are."""

import numpy as np
import pytest

from llminfra import evaluate


def test_metrics_of_a_known_ranking():
    values = evaluate.ranked({"q": {"b": 1, "d": 1}, "lost": {"x": 1}}, {"q": ["a", "b", "c", "d"]})
    assert values["RR@10"] == {"q": 0.5, "lost": 0} and values["R@5"] == {"q": 1, "lost": 0}
    ideal = 1 + 1 / np.log2(3)
    assert values["nDCG@10"]["q"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)


def test_an_interval_covers_and_a_difference_is_paired():
    one = {str(n): float(n % 2) for n in range(200)}
    made = evaluate.interval(one)
    assert made.low < made.mean == 0.5 < made.high and 0.1 < made.high - made.low < 0.2
    better = {name: value + 0.1 for name, value in one.items()}
    apart = evaluate.difference(better, one)
    assert apart.low == pytest.approx(0.1) and apart.high == pytest.approx(0.1)
    with pytest.raises(ValueError, match="not asked the same"):
        evaluate.difference(one, {"0": 1.0})
    with pytest.raises(ValueError, match="at least one value"):
        evaluate.interval([])


@pytest.mark.parametrize(
    ("yes", "count", "low", "high"),  # z = 1.96: (p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n), by hand
    [(0, 12, 0.0, 0.2425), (7, 21, 0.1719, 0.5463), (15, 15, 0.7961, 1.0)],
)
def test_a_share_has_wilsons_interval(yes, count, low, high):
    made = evaluate.share([True] * yes + [False] * (count - yes))
    assert (made.mean, made.low, made.high) == pytest.approx((yes / count, low, high), abs=1e-4)


def test_no_value_has_no_share():
    with pytest.raises(ValueError, match="at least one value"):
        evaluate.share([])
