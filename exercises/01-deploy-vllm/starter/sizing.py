"""What fits on a card, and which deployment costs least: arithmetic before anything is rented."""

from __future__ import annotations

import math
from typing import Any

BLOCK_TOKENS = 16
HOURS_PER_MONTH = 730


def plan(model: dict[str, Any], card: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return {weights_bytes, kv_bytes_per_token, kv_bytes, max_concurrent, fits, replicas} for a card of memory and its users."""
    # R11: your code
    raise NotImplementedError


def weights_bytes(model: dict[str, Any], precision: str) -> int:
    """Return the bytes of the weights: in int4 the matrices of the layers shrink, embeddings and head do not."""
    # R11: your code
    raise NotImplementedError


def choose(workload: dict[str, Any], offer: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """Return {usd_per_month, pattern}: the cost of each deployment pattern that the workload allows, and the cheapest one."""
    # R12: your code
    raise NotImplementedError
