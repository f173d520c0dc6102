"""A seeded generator that gives the same sequence in CPython and in MicroPython, whose `random` differ."""

import math

from . import tables


class Random:
    """Numbers from two multiplicative generators combined (L'Ecuyer 1988): period 2.3e18, no number above 31 bits."""

    def __init__(self, seed: int = 0):
        self._one = 1 + (seed * 69069 + 12345) % 2147483562
        self._two = 1 + (seed * 40503 + 54321) % 2147483398
        for _ in range(8):
            self.random()

    def random(self) -> float:
        """Return a number above 0 and below 1."""
        self._one = 40014 * (self._one % 53668) - 12211 * (self._one // 53668)
        if self._one < 0:
            self._one += 2147483563
        self._two = 40692 * (self._two % 52774) - 3791 * (self._two // 52774)
        if self._two < 0:
            self._two += 2147483399
        drawn = self._one - self._two
        return (drawn if drawn > 0 else drawn + 2147483562) / 2147483563

    def below(self, bound: int) -> int:
        """Return a whole number from 0 to `bound` - 1, each as likely."""
        return int(self.random() * tables.whole("bound", bound))

    def exponential(self, mean: float) -> float:
        """Return a waiting time of this mean: what is left to wait does not depend on how long one has waited."""
        return -mean * math.log(self.random())
