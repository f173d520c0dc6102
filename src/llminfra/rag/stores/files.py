"""Folders of databases: how much of a disk they take, and copies that do not fill their holes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

BLOCK = 1 << 16


def allocated(folder: Path, part: Callable[[Path], str]) -> dict[str, int]:
    """Return the bytes that a folder's files take on the disk, by what `part` says of a file's path below the folder.

    Databases set files up far larger than what is in them: what counts is what is allocated, not how long a file is.
    """
    found: dict[str, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            key = part(file.relative_to(folder))
            found[key] = found.get(key, 0) + file.stat().st_blocks * 512
    return dict(sorted(found.items()))


def copy(source: Path, target: Path) -> None:
    """Copy a folder. Blocks of zeros are left out of the files, as they were: they would take their full length."""
    shutil.copytree(source, target, copy_function=_copy_file, ignore=shutil.ignore_patterns(".s.PGSQL*"))


def _copy_file(source: str, target: str) -> None:
    zeros = bytes(BLOCK)
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while block := reading.read(BLOCK):
            if block == zeros[: len(block)]:
                writing.seek(len(block), os.SEEK_CUR)
            else:
                writing.write(block)
        writing.truncate()
    shutil.copystat(source, target)
