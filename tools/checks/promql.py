"""PromQL: parsed, and its metrics and labels looked up among those that the engine and Prometheus have.

`tests/data/vllm_metrics.json` is the committed list: each family's type and labels, as a running engine showed them.
The engine tests compare it with the installed version.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from typing import Any

import promql_parser

from checks.source import ROOT

METRICS = ROOT / "tests" / "data" / "vllm_metrics.json"
# What Prometheus itself adds: a series per target, and labels per target; a cluster's discovery adds the rest.
PROMETHEUS = {"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped"}
TARGET_LABELS = {"instance", "job", "alertname", "alertstate", "severity", "namespace", "pod", "node", "container"}


@cache
def families() -> dict[str, dict[str, Any]]:
    """Return the engine's metric families: name to type and labels."""
    return json.loads(METRICS.read_text(encoding="utf-8"))["families"]


def series() -> dict[str, set[str]]:
    """Return the series that the families make, with the labels of each."""
    found: dict[str, set[str]] = {}
    for name, family in families().items():
        labels = set(family["labels"])
        if family["type"] == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        elif family["type"] == "summary":
            found |= {name: labels | {"quantile"}, f"{name}_sum": labels, f"{name}_count": labels}
        elif family["type"] == "counter":
            found[f"{name}_total"] = labels
        else:
            found[name] = labels
    return found


def problems(expression: str, recorded: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Return what is wrong with an expression; `recorded` are metrics that recording rules make."""
    try:
        tree = promql_parser.parse(expression)
    except ValueError as error:
        return [f"no PromQL: {str(error).splitlines()[0]}: {expression.strip()[:80]}"]
    known, found = series(), []
    for selector in _selectors(tree):
        name = selector.name or next((m.value for m in selector.matchers.matchers if m.name == "__name__"), "")
        if name in PROMETHEUS or name in recorded:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            found.append(f"no metric {name} among those of the engine (tests/data/vllm_metrics.json){hint}")
            continue
        found += [
            f"{name} has no label {matcher.name}; it has {', '.join(sorted(known[name]))}"
            for matcher in selector.matchers.matchers
            if matcher.name not in known[name] | TARGET_LABELS | {"__name__"}
        ]
    return found


def _selectors(tree: Any) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(
        tree, lambda node: found.append(node) if isinstance(node, promql_parser.VectorSelector) else None
    )
    return found
