"""Fit the constants of `calc.roofline` on public measurements, and say how far off each row is.

They belong into `calc/data/assumptions.json`; tests hold that they are what comes out here. Rows that are held out, or whose
settings are not known, take no part in the fit.
"""

import itertools
import math
import statistics
import sys
from typing import Any

from llminfra.calc import tables
from llminfra.trust import speed

MATMUL = 0.87
"""The most that large matrix products reach of the sheet's rate: 271 of 312 TFLOP/s on an A100 (stas00/ml-engineering)."""


def fit() -> dict[str, float]:
    """Return the constants of least mean absolute error of the logarithm, by a search that narrows.

    One request on one card with short prompts tells what a layer's start and memory cost: one table of 23 rows has the sizes
    and precisions for it. The other sources, each counting alike, then tell what arithmetic and a request's way cost.
    """
    rows = [row for row in speed.rows() if not row["held_out"] and "ambiguous" not in row]
    decode = [row for row in rows if row["source"] == "qwen2.5"]
    others = [row for row in rows if row["source"] != "qwen2.5"]
    found = _search(decode, {}, {"layer_launch_s": (1e-4, 9e-5), "memory_efficiency": (0.8, 0.2)})
    return found | _search(others, found, {"compute_efficiency": (0.5, MATMUL - 0.5), "request_s": (0.02, 0.019)})


def _search(
    rows: list[dict[str, Any]], known: dict[str, float], ranges: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Return the values within the ranges (middle, half width) with which these rows come out best."""
    weight = {source: 1 / sum(row["source"] == source for row in rows) for source in {row["source"] for row in rows}}

    def loss(values: tuple[float, ...]) -> float:
        constants = known | dict(zip(ranges, values, strict=True))
        return sum(weight[row["source"]] * abs(math.log(speed.slower(row, **constants))) for row in rows)

    best = tuple(middle for middle, _ in ranges.values())
    for step in range(12):
        halves = [half * 0.6**step for _, half in ranges.values()]
        around = itertools.product(*[(v - half, v, v + half) for v, half in zip(best, halves, strict=True)])
        inside = [v for v in around if all(abs(x - m) <= h for x, (m, h) in zip(v, ranges.values(), strict=True))]
        best = min(inside, key=loss)
    return dict(zip(ranges, best, strict=True))


def main() -> int:
    """Print the constants, those in use, and the errors of every row."""
    found = fit()
    for name, value in found.items():
        print(f"{name}: {value:.3g} fitted, {tables.assumption(name)['value']:.3g} in use")
    for held_out in (False, True):
        errors = []
        for row in speed.rows():
            if row["held_out"] == held_out:
                ratio = speed.slower(row)
                errors.append(max(ratio, 1 / ratio))
                what = speed.kind(row)
                doubt = f" ({row['ambiguous']})" if "ambiguous" in row else ""
                print(
                    f"{row['source']:13s} {row['gpu']:10s} {row['model']:24s} {row['precision']:5s} {row['prompt']:6d}+{row['output']:4d} "
                    f"x{row['concurrency']:<3d} {what:21s} {row[what]:8.1f} predicted {speed.predicted(row):8.1f}, {ratio:4.2f}x as slow{doubt}"
                )
        print(f"held out: {held_out}; median off by {statistics.median(errors) - 1:.0%}, worst {max(errors):.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
