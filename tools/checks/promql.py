"""PromQL: parsed, its metrics and labels looked up among those that the engine and Prometheus have, and their types heeded.

`tests/data/vllm_metrics.json` is the committed list: each family's type and labels, as a running engine showed them.
The engine tests compare it with the installed version. A function over the wrong type of metric is no error to Prometheus: it
answers with a number that means nothing, so it is refused here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import promql_parser
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

from checks.source import ROOT

METRICS = ROOT / "tests" / "data" / "vllm_metrics.json"
# What Prometheus itself adds: a series per target, and labels per target; a cluster's discovery adds the rest.
PROMETHEUS = {"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped"}
TARGET_LABELS = {"instance", "job", "alertname", "alertstate", "severity", "namespace", "pod", "node", "container"}
# Functions by what they read: a counter's growth, corrected for restarts; or the values of a gauge as they are.
OF_COUNTERS = {"rate", "irate", "increase", "resets"}
OF_GAUGES = {
    *("delta", "idelta", "deriv", "predict_linear", "double_exponential_smoothing", "holt_winters"),
    *(f"{what}_over_time" for what in ("avg", "min", "max", "sum", "quantile", "stddev", "stdvar", "mad")),
}
OF_BUCKETS = {"histogram_quantile", "histogram_fraction"}
# Aggregations whose result is of the type of what they aggregate.
KEEP_TYPE = {"sum", "min", "max", "avg", "topk", "bottomk", "limitk"}


@dataclass(frozen=True)
class Series:
    """What a series holds (a counter, a gauge, or a histogram's bucket, which is a counter too), and its labels."""

    type: str
    labels: frozenset[str]


@cache
def families() -> dict[str, dict[str, Any]]:
    """Return the engine's metric families: name to type and labels."""
    return json.loads(METRICS.read_text(encoding="utf-8"))["families"]


@cache
def series() -> dict[str, Series]:
    """Return the series that the families make, by name."""
    found: dict[str, Series] = {}
    for name, family in families().items():
        labels = frozenset(family["labels"])
        counter = Series("counter", labels)
        if family["type"] == "histogram":
            bucket = Series("bucket", labels | {"le"})
            found |= {f"{name}_bucket": bucket, f"{name}_sum": counter, f"{name}_count": counter}
        elif family["type"] == "summary":
            quantiles = Series("gauge", labels | {"quantile"})
            found |= {name: quantiles, f"{name}_sum": counter, f"{name}_count": counter}
        elif family["type"] == "counter":
            found[f"{name}_total"] = counter
        else:
            found[name] = Series("gauge", labels)
    return found


def problems(expression: str, recorded: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Return what is wrong with an expression; `recorded` are metrics that recording rules make."""
    try:
        tree = promql_parser.parse(expression)
    except ValueError as error:
        return [f"no PromQL: {str(error).splitlines()[0]}: {expression.strip()[:80]}"]
    nodes: list[Any] = []
    promql_parser.walk(tree, lambda node: nodes.append(node))
    unknown = [reason for node in nodes if isinstance(node, VectorSelector) for reason in _unknown(node, recorded)]
    return unknown or [reason for node in nodes if isinstance(node, Call) for reason in _mistyped(node, recorded)]


def _name(selector: VectorSelector) -> str:
    return selector.name or next((m.value for m in selector.matchers.matchers if m.name == "__name__"), "")


def _unknown(selector: VectorSelector, recorded: set[str] | frozenset[str]) -> Iterator[str]:
    """Yield the metric, or the labels of it, that nothing exposes."""
    name, known = _name(selector), series()
    if name in PROMETHEUS or name in recorded:
        return
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield f"no metric {name} among those of the engine (tests/data/vllm_metrics.json){hint}"
        return
    labels = known[name].labels
    yield from (
        f"{name} has no label {matcher.name}; it has {', '.join(sorted(labels))}"
        for matcher in selector.matchers.matchers
        if matcher.name not in labels | TARGET_LABELS | {"__name__"}
    )


def _mistyped(call: Call, recorded: set[str] | frozenset[str]) -> Iterator[str]:
    """Yield why a function cannot read the metric that it is given."""
    function = call.func.name
    if function in OF_BUCKETS:
        level = call.args[0]
        if function == "histogram_quantile" and isinstance(level, NumberLiteral) and not 0 <= level.val <= 1:
            yield f"{function}({level.val:g}, …): a quantile is between 0 and 1"
        yield from (f"{function}: {reason}" for reason in _no_buckets(call.args[-1], recorded))
        return
    read = next((arg for arg in call.args if isinstance(arg, MatrixSelector | SubqueryExpr)), None)
    if read is None or not {function} & (OF_COUNTERS | OF_GAUGES):
        return
    held = _type(read, recorded)
    if function in OF_COUNTERS and held == "gauge":
        yield f"{function} of {_short(read)}, a gauge: {function} reads counters; of a gauge take delta, deriv or avg_over_time"
    if function in OF_GAUGES and held in ("counter", "bucket"):
        yield f"{function} of {_short(read)}, a counter: it only grows, and restarts at 0; take rate or increase"


def _short(node: Any) -> str:
    return " ".join(node.prettify().split())


def _type(node: Any, recorded: set[str] | frozenset[str]) -> str:
    """Return the type of what an expression holds: counter, gauge, bucket; empty where nothing says."""
    if isinstance(node, VectorSelector):
        known = series().get(_name(node))
        return "gauge" if _name(node) in PROMETHEUS - recorded else known.type if known else ""
    if isinstance(node, MatrixSelector):
        return _type(node.vector_selector, recorded)
    if isinstance(node, ParenExpr | UnaryExpr | SubqueryExpr):
        return _type(node.expr, recorded)
    if isinstance(node, AggregateExpr):
        return _type(node.expr, recorded) if str(node.op) in KEEP_TYPE else "gauge"
    return "gauge" if isinstance(node, Call) and node.func.name in OF_COUNTERS | OF_GAUGES | OF_BUCKETS else ""


def _no_buckets(node: Any, recorded: set[str] | frozenset[str]) -> Iterator[str]:
    """Yield why an expression holds no buckets of a histogram, each with its bound `le`."""
    if isinstance(node, AggregateExpr):
        by, labels = (node.modifier.type, node.modifier.labels) if node.modifier else (AggModifierType.By, [])
        if ("le" in labels) != (by == AggModifierType.By):
            yield f"{_short(node)[:60]} drops `le`, the bound of each bucket: sum by (le, …)"
        yield from _no_buckets(node.expr, recorded)
    elif isinstance(node, BinaryExpr):
        sides = [side for side in (node.lhs, node.rhs) if not isinstance(side, NumberLiteral)]
        yield from (reason for side in sides for reason in _no_buckets(side, recorded))
    elif isinstance(node, ParenExpr | UnaryExpr | SubqueryExpr):
        yield from _no_buckets(node.expr, recorded)
    elif isinstance(node, MatrixSelector):
        yield from _no_buckets(node.vector_selector, recorded)
    elif isinstance(node, Call):
        yield from (reason for arg in node.args for reason in _no_buckets(arg, recorded))
    elif isinstance(node, VectorSelector) and _name(node) not in recorded:
        held = _type(node, recorded)
        if held != "bucket":
            yield f"{_name(node)} is a {held}: quantiles come from the `_bucket` series of a histogram"
