"""Write down what a process really uses: the packages it imports, and the files of the project that it opens or lists.

Python imports a `sitecustomize` it finds on its path. `notebook.record` puts this folder there while a chapter is executed, so
that the kernel and every Python it starts leave a line for each in one file, even when they are killed: `import NAME`,
`open PATH`, `list PATH`. A module counts as its source, also where its bytecode was read; a program that is started counts
with the files its arguments name. What a failed import or open asked for is written too: its absence was used.
"""

import os
import sys
from typing import Any

_FILE = os.environ.get("LLMINFRA_USED", "")
_ROOT = os.environ.get("LLMINFRA_USED_ROOT", "") + os.sep
_seen: set[str] = set()


def _note(line: str) -> None:
    if line in _seen:
        return
    _seen.add(line)
    try:
        descriptor = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except FileNotFoundError:  # the folder is gone, and with it whoever asked: a process that is left needs no record
        return
    os.write(descriptor, (line + "\n").encode())
    os.close(descriptor)


def _inside(path: Any) -> str:
    """Return a path's part below the project, or nothing: outside of it, hidden, built, or not a path at all."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    full = os.path.abspath(os.fsdecode(path))
    if not full.startswith(_ROOT) or "\n" in full:
        return ""
    folder, cached, name = full.rpartition(f"{os.sep}__pycache__{os.sep}")
    if cached:  # also what pytest rewrote, under a longer name
        full = os.path.join(folder, f"{name.partition('.')[0]}.py")
    parts = full[len(_ROOT) :].split(os.sep)
    built = any(part.startswith((".", "_build", "__pycache__")) or part.endswith(".egg-info") for part in parts)
    return "" if built or parts[0] == "node_modules" else "/".join(parts)


def _by_the_import_system() -> bool:
    """Return whether who lists a folder is Python's own import system, which looks through every folder of its path."""
    return "importlib" in sys._getframe(2).f_code.co_filename


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "import":
        _note(f"import {args[0].partition('.')[0]}")
    elif event == "open":
        path, mode, flags = args
        writes = set(mode or "") & set("wax") or (flags or 0) & (os.O_WRONLY | os.O_CREAT)
        inside = "" if writes else _inside(path)
        # A name that os.open was given may be below a folder that only its descriptor tells: removing a tree works so.
        if inside and (mode or os.path.exists(path)):
            _note(f"open {inside}")
    elif event in ("os.listdir", "os.scandir", "pathlib.Path.glob", "pathlib.Path.rglob"):
        inside = _inside("." if args[0] is None else args[0])
        if inside and not _by_the_import_system():
            _note(f"list {inside}")
    elif event == "sqlite3.connect":
        inside = "" if args[0] == ":memory:" else _inside(args[0])
        if inside:
            _note(f"open {inside}")
    elif event == "subprocess.Popen":
        _, words, folder, _ = args
        for word in words if isinstance(words, list | tuple) else ():
            if isinstance(word, str | bytes | os.PathLike):
                path = os.path.join(os.fsdecode(folder or "."), os.fsdecode(word))
                inside = _inside(path)
                if inside and os.path.exists(path):
                    _note(f"{'list' if os.path.isdir(path) else 'open'} {inside}")


if _FILE:
    sys.addaudithook(_watch)
