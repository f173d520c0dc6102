"""Let a process and all Python that it starts write down what they use, and read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def environment(record: Path, root: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables under which a Python writes to `record` what it uses, and imports the project at `root`."""
    places = [str(Path(__file__).parent / "recorder"), str(root / "src"), env.get("PYTHONPATH")]
    return {
        **{name: value for name, value in env.items() if name != "PYTHONPYCACHEPREFIX"},
        "LLMINFRA_USED": str(record),
        "LLMINFRA_USED_ROOT": str(root),
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
    }


def read(record: Path) -> tuple[set[str], set[str]]:
    """Return the top-level packages that were imported, and the project's files and folders that were opened or listed."""
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    used = [line.partition(" ")[::2] for line in lines]
    return {name for what, name in used if what == "import"}, {path for what, path in used if what != "import"}


def changed(paths: set[str], root: Path, began_s: float) -> list[str]:
    """Return which of these files were changed after a time (seconds since the epoch), in order."""
    files = [path for path in sorted(paths) if (root / path).is_file()]
    return [path for path in files if (root / path).stat().st_mtime > began_s]
