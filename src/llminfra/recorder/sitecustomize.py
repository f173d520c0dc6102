"""Write down each top-level package that a process really imports.

Python imports a `sitecustomize` it finds on its path. `llminfra.twins` puts this folder there while it executes a
chapter, so that the kernel and every engine it starts leave the names of their packages in one file, even when they are
killed. A failed import is written too; only names that an installed distribution provides are kept later.
"""

import os
import sys
from typing import Any

_FILE = os.environ.get("LLMINFRA_RECORD_IMPORTS", "")
_seen: set[str] = set()


def _note_import(event: str, args: tuple[Any, ...]) -> None:
    if event != "import":
        return
    package = args[0].partition(".")[0]
    if package in _seen:
        return
    _seen.add(package)
    descriptor = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (package + "\n").encode())
    os.close(descriptor)


if _FILE:
    sys.addaudithook(_note_import)
