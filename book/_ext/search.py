"""After the build: an index of the whole site that the search dialog reads piece by piece, made by Pagefind."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pagefind_bin
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ARTICLE = "article[role=main]"
# Marks, formulas without their layout, what every chapter repeats or a machine printed, and what a widget asks and answers.
IGNORED = [
    ".headerlink",
    ".math",
    ".chapter-header",
    ".twin-stamp",
    ".cell_output",
    ".linenos",
    ".gp",
    ".widget",
    ".code-fold > summary",
    ".quiz-item",
    ".predict",
]
# What search.mjs loads, of all that Pagefind writes; the rest is its own interface.
KEPT = re.compile(r"pagefind\.js|pagefind-entry\.json|wasm\.en\.pagefind|.*\.pf_(meta|index|fragment)")


# A brief asks for what the chapters explain: it comes behind them.
BEHIND, WEIGHT = "exercises/", "0.2"


def anchored(html: str) -> str:
    """Return a page whose headings and glossary terms carry the ids of their sections, for Pagefind to point at."""
    html = re.sub(
        r'<section\b[^>]*?\bid="([^"]+)"[^>]*>((?:\s*<span id="[^"]*"></span>)*\s*)<h([1-6])>',
        r'<section>\2<h\3 id="\1">',
        html,
    )
    return re.sub(r'<dt id="(term-[^"]+)">(.*?)</dt>', r'<h4 id="\1">\2</h4>', html, flags=re.S)


def index(app: Sphinx, exception: Exception | None) -> None:
    """Write `pagefind/` beside the pages; an error if Pagefind fails or finds nothing to index."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    shutil.rmtree(site / "pagefind", ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for docname in app.env.found_docs:
            copy = Path(folder, f"{docname}.html")
            copy.parent.mkdir(parents=True, exist_ok=True)
            html = anchored((site / f"{docname}.html").read_text(encoding="utf-8"))
            if docname.startswith(BEHIND):
                html = html.replace('<article role="main"', f'<article role="main" data-pagefind-weight="{WEIGHT}"', 1)
            copy.write_text(html, encoding="utf-8")
        run(Path(folder), site / "pagefind")
    for file in (site / "pagefind").rglob("*"):
        if file.is_file() and not KEPT.fullmatch(file.name):
            file.unlink()


def run(pages: Path, output: Path) -> None:
    """Index a folder of pages into another; ExtensionError with Pagefind's own words if it cannot."""
    options = ["--root-selector", ARTICLE, "--exclude-selectors", ",".join(IGNORED), "--keep-index-url"]
    command = [str(pagefind_bin.get_executable()), "--site", str(pages), "--output-path", str(output), *options]
    done = subprocess.run([*command, "--force-language", "en", "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode or not list(output.glob("*.pf_meta")):
        raise ExtensionError(f"Pagefind made no search index of {pages}: {done.stderr or done.stdout}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Index what all other extensions have finished."""
    app.connect("build-finished", index, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
