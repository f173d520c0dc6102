"""How busy the machine was with the work of others: what a claim about time that failed has to be read beside."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Watch:
    """Samples, every few seconds while it is open, how many cores all processes that are not below this one used."""

    every_s: float = 3
    samples: list[tuple[float, float]] = field(default_factory=list)
    """(end of the interval, seconds since the epoch; cores that others used in it)"""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        before, then = others_ticks(), time.time()
        while not self._stop.wait(self.every_s):
            after, now = others_ticks(), time.time()
            used = sum(ticks - before.get(pid, ticks) for pid, ticks in after.items()) / TICKS_PER_S
            self.samples.append((now, used / (now - then)))
            before, then = after, now

    def cores(self, began: float, ended: float) -> float | None:
        """Return how many cores others used on average between two times, or None if nothing was sampled then."""
        during = [cores for at, cores in self.samples if began <= at <= ended + self.every_s]
        return sum(during) / len(during) if during else None


def others_ticks() -> dict[int, int]:
    """Return the processor time, in clock ticks, of each process that is not below this one (see proc(5))."""
    parents, ticks = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    ours, more = set(), {os.getpid()}
    while more:
        ours |= more
        more = {pid for pid, parent in parents.items() if parent in more} - ours
    return {pid: used for pid, used in ticks.items() if pid not in ours}
