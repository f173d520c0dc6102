"""Folders of databases: what they take of a disk, copies that keep their holes, new ones that are whole or absent, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = 1 << 16


def allocated(folder: Path, part: Callable[[Path], str]) -> dict[str, int]:
    """Return the bytes that a folder's files take on the disk, by what `part` says of a file's path below the folder.

    Databases set files up far larger than what is in them: what counts is what is allocated, not how long a file is. A file
    that its database removes meanwhile counts nothing.
    """
    found: dict[str, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            key = part(file.relative_to(folder))
            with contextlib.suppress(FileNotFoundError):
                found[key] = found.get(key, 0) + file.lstat().st_blocks * 512
    return dict(sorted(found.items()))


def copy(source: Path, target: Path) -> None:
    """Copy a folder. Blocks of zeros are left out of the files, as they were: they would take their full length."""
    shutil.copytree(source, target, copy_function=_copy_file, dirs_exist_ok=True)


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


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it is named `target` when the block ends, and removed if the block raises.

    A process that is killed meanwhile leaves a hidden folder beside `target`, never a part of `target` itself. Raises OSError
    if `target` is there with something in it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fresh = beside / target.name
        fresh.mkdir()
        yield fresh
        fresh.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def lock(file: Path, timeout_s: float) -> int:
    """Return an open descriptor of a lock file that nobody else has, in this process or another, until it is closed.

    Raises TimeoutError if it is still taken after `timeout_s`.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{file} is locked") from None
                time.sleep(0.05)
    except BaseException:
        os.close(descriptor)
        raise
