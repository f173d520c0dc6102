"""What a store keeps when all of it is killed while it writes: the process, and the server that belongs to it.

SIGKILL loses what is in a process's memory, not what it has handed to the operating system; only a loss of power shows what
was not yet on the disk, and no test here can take the power away.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llminfra.process import last_words
from llminfra.stores import Store, StoreError, open_store

LIMIT_S = 120


@dataclass(frozen=True)
class Survival:
    """How many vectors were acknowledged, and what there was after the crash.

    `kept`: acknowledged and still there; `found`: and come first when their own vector is searched; `beyond`: there without
    having been acknowledged, of a batch of `batch`. `reopen_s`: seconds until the store was open again. `said`: why it could
    not be, or nothing.
    """

    acknowledged: int
    kept: int
    found: int
    beyond: int
    batch: int
    reopen_s: float
    said: str = ""


def what_survives(
    url: str, name: str = "crash", *, dimensions: int = 32, batch: int = 100, after: int = 5, **settings: Any
) -> Survival:
    """Write batches in a process of its own, kill that with SIGKILL once `after` were acknowledged, and look what is there.

    `url` and `name` must name a collection that is not there yet; it is left as it is. `settings` are those of `open_store`.
    Raises StoreError if the writer ends before it is killed.
    """
    given = json.dumps({"dimensions": dimensions, **settings})
    command = [sys.executable, "-m", __name__, url, name, str(batch), given]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as writer,
    ):
        assert writer.stdout is not None
        watch = threading.Timer(LIMIT_S, writer.kill)
        watch.start()
        try:
            done = sum(1 for _ in itertools.islice(writer.stdout, after))
            writer.kill()
            done += len(writer.stdout.read().split())
        finally:
            watch.cancel()
            writer.kill()
        if writer.wait() >= 0 or done < after:
            log.seek(0)
            raise StoreError(f"{url} {name!r}: the writer ended before it was killed: {last_words(log.read())}")
    begun = time.monotonic()
    try:
        store = open_store(url, name, create=False)
    except StoreError as error:
        return Survival(done * batch, 0, 0, 0, batch, time.monotonic() - begun, str(error))
    with store:
        reopen_s = time.monotonic() - begun
        there = store.ids()
        kept = sorted(number for number in there if number < done * batch)
        found = [number for number in kept if _first(store, number)]
        return Survival(done * batch, len(kept), len(found), len(there) - len(kept), batch, reopen_s)


def vectors(ids: Sequence[int], dimensions: int) -> NDArray[np.float32]:
    """Return the vectors that are written under these ids (n x dimensions)."""
    return np.stack([np.random.default_rng(number).normal(size=dimensions) for number in ids]).astype(np.float32)


def _first(store: Store, number: int) -> bool:
    hits = store.search(vectors([number], store.dimensions)[0], 1)
    return bool(hits) and hits[0].id == number


def _write(url: str, name: str, batch: int, settings: dict[str, Any]) -> None:
    """Write batches until the process is killed, and a line for each that was acknowledged."""
    store = open_store(url, name, **settings)
    for number in itertools.count():
        ids = range(number * batch, (number + 1) * batch)
        store.upsert(ids, vectors(ids, store.dimensions), [{"batch": number} for _ in ids])
        print(number, flush=True)


if __name__ == "__main__":
    _write(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
