"""How far to trust `calc`: what it predicts against what public start-up logs and measurements report."""

from .compare import BARS, Bar, Compared, Summary, compared, out_of_bounds, predicted_start, summary, unpredicted
from .rows import MemoryRow, Source, append, memory_rows
from .startup import StartupLog, parse, row_of

__all__ = [
    "BARS",
    "Bar",
    "Compared",
    "MemoryRow",
    "Source",
    "StartupLog",
    "Summary",
    "append",
    "compared",
    "memory_rows",
    "out_of_bounds",
    "parse",
    "predicted_start",
    "row_of",
    "summary",
    "unpredicted",
]
