"""`make lab`: working copies of the notebooks and exercises in `lab/`, and JupyterLab on them.

A working copy is made once from a chapter's committed twin and then belongs to the learner: only `reset` replaces it. Its outputs
are cleared, so that whatever the learner sees in it, this machine has computed; the page shows the recorded ones.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..errors import InputError
from .chapter import ROOT, twin_path
from .readable import Site, readable
from .stamp import digest

SERVED = "/static"
"""Where the server of `command` has the built site."""
HIDDEN = ".jupyterlab"
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
"""Defaults of JupyterLab that differ here: it asks nothing of other hosts, and asks the learner for no leave to."""
NOTE = """> **Your working copy.** Change and run anything: the course's own notebook stays as it is. The outputs are cleared, so predict, run, then compare with [this chapter's page]({page}).
>
> To start over: `make lab-reset NB={name}` in a terminal (your copy is kept as `{kept}`)."""


def working_copy(chapter: Path, root: Path = ROOT) -> NotebookNode:
    """Return a page's notebook for a learner: a note that links to the page, readable prose, no outputs, no tags of the tests.

    Raises InputError if the page has no twin.
    """
    twin_file = twin_path(chapter)
    if not twin_file.is_file():
        raise InputError(f"{chapter.name} has no notebook yet: run make notebooks")
    made = nbformat.read(twin_file, as_version=4)
    site = Site(f"{SERVED}/book", chapter.stem)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count, cell.metadata = [], None, nbformat.from_dict({})
        else:
            cell.source = readable(cell.source, site, root)
    made.cells = [cell for cell in made.cells if cell.source]
    name = chapter.stem[:2] if chapter.stem[:2].isdecimal() else chapter.stem
    note = nbformat.v4.new_markdown_cell(NOTE.format(page=site.here, name=name, kept=kept(chapter.stem)), id="note")
    made.cells.insert(0, note)
    made.metadata = nbformat.from_dict(
        {
            "kernelspec": made.metadata["kernelspec"],
            "language_info": made.metadata["language_info"],
            "llminfra": {"copied_from": digest(twin_file.read_bytes())},
        }
    )
    return made


def kept(stem: str) -> str:
    """Return the name under which `reset` keeps a working copy."""
    return f"{stem}.before-reset.ipynb"


def prepare(chapters: Iterable[Path], folder: Path, reset: bool = False, root: Path = ROOT) -> list[str]:
    """Make the working copies of these pages and of all exercises that are not there yet; return what to tell the learner.

    What is there stays as it is. With `reset`, the working copy of each page is made anew, and the old one kept beside it.
    """
    (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
    (folder / HIDDEN / "overrides.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    told = []
    for chapter in chapters:
        mine = folder / f"{chapter.stem}.ipynb"
        if mine.is_file() and reset:
            mine.replace(folder / kept(chapter.stem))
            told.append(f"{mine.name}: made anew; your copy is now {kept(chapter.stem)}")
        if not mine.is_file():
            partial = mine.with_suffix(".part")
            nbformat.write(working_copy(chapter, root), partial)
            partial.replace(mine)
        elif _outdated(mine, chapter):
            told.append(
                f"{mine.name}: the chapter has changed since you made this copy; make lab-reset NB={chapter.stem[:2]} renews it"
            )
    for starter in sorted((root / "exercises").glob("*/starter")):
        mine = folder / "exercises" / starter.parent.name
        if not mine.exists():
            partial = mine.with_name(f".{mine.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(starter, partial, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            partial.replace(mine)
    return told


def _outdated(mine: Path, chapter: Path) -> bool:
    """Return whether a working copy was made from another twin than today's; one that cannot be read is the learner's affair."""
    try:
        before = nbformat.read(mine, as_version=4).metadata["llminfra"]["copied_from"]
    except (KeyError, ValueError, OSError):
        return False
    return bool(before != digest(twin_path(chapter).read_bytes()))


def command(folder: Path, opened: Path | None, browser: bool, port: int | None, root: Path = ROOT) -> list[str]:
    """Return the command that serves `folder` in JupyterLab on 127.0.0.1, and the built site below `SERVED`.

    `opened` is the notebook that the browser shows first. A port that is taken is followed by the next free one.
    """
    start = f"/lab/tree/{opened.relative_to(folder).as_posix()}" if opened else "/lab"
    options = [
        "--Application.log_level=WARN",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.open_browser={browser}",
        f"--ServerApp.extra_static_paths={root / '_build' / 'html'}",
        f"--LabApp.default_url={start}",
        f"--LabApp.app_settings_dir={folder / HIDDEN}",
        "--KernelSpecManager.ensure_native_kernel=True",
        "--KernelSpecManager.allowed_kernelspecs=python3",
    ]
    if port is not None:
        options.append(f"--ServerApp.port={port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--ServerApp.allow_root=True")  # in a container
    return [sys.executable, "-m", "jupyterlab", *options]


def environment(now: dict[str, str]) -> dict[str, str]:
    """Return the server's environment: kernels of this Python come first, and its programs are found by their names."""
    programs = str(Path(sys.executable).parent)
    return {
        **{name: value for name, value in now.items() if name != "JUPYTER_PATH"},
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PATH": os.pathsep.join([programs, now.get("PATH", "")]),
    }


def serve(words: Sequence[str]) -> None:
    """Become the server: the process is replaced, so Ctrl-C reaches JupyterLab alone, which asks before it stops."""
    os.execve(words[0], list(words), environment(dict(os.environ)))
