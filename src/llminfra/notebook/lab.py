"""A notebook's helpers: claims that can fail, cells for a GPU, and plots that read in light and dark."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ..models import profile
from .gpucell import gpu_cell

__all__ = ["CheckFailed", "check", "plots", "profile", "run", "table"]


class CheckFailed(AssertionError):
    """A claim that does not hold, with the figures it was judged by."""


def check(claim: str, holds: bool | Callable[[], bool], again: Callable[[], object] | None = None) -> None:
    """Print a claim with a tick if it holds, or raise CheckFailed with the values of the names in its condition.

    The claim is compared strictly between runs, so it states the bound and no measured figure. A claim about time gives its
    condition as a function, and with `again` a function that measures once more: a busy moment alone does not refute it.
    """
    __tracebackhide__ = True
    frame = inspect.currentframe()
    condition = holds if callable(holds) else lambda: holds
    seen = "" if condition() else _figures(frame)
    if seen and again is not None:
        again()
        seen = "" if condition() else f"{seen}\n  measured again:{_figures(frame)}"
    if seen:
        raise CheckFailed(f"✗ {claim}{seen}")
    print(f"✓ {claim}")


def _figures(frame: Any) -> str:
    """Return the condition of the failing `check` call and what its names held, for the caller of `frame`."""
    from executing import Source

    caller = frame.f_back
    node = Source.executing(caller).node
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return "\n  its source is not known here"
    condition = node.args[1].body if isinstance(node.args[1], ast.Lambda) else node.args[1]
    lines = [f"\n  {ast.unparse(condition)}"]
    known = {**caller.f_globals, **caller.f_locals}
    for name in dict.fromkeys(n.id for n in ast.walk(condition) if isinstance(n, ast.Name)):
        if name in known and not callable(known[name]):
            lines.append(f"\n  {name} = {textwrap.shorten(repr(known[name]), 300)}")
    return "".join(lines)


def table(rows: list[Mapping[str, Any]]) -> None:
    """Print rows (one mapping each, the same keys) as a plain table; floats with three significant digits."""

    def text(value: Any) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float) and abs(value) < 1000
            else f"{value:,.0f}"
            if isinstance(value, float)
            else str(value)
        )

    heads = list(rows[0])
    cells = [heads, *([text(row[head]) for head in heads] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    numeric = [all(isinstance(row[head], int | float) for row in rows) for head in heads]
    for row in cells:
        print("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip())


def run(*command: str, timeout_s: float = 120) -> str:
    """Run a program, without a shell, and return what it printed to stdout and stderr.

    Raises FileNotFoundError, subprocess.TimeoutExpired, or CheckFailed with the output if it exits with another status
    than 0.
    """
    here = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    program = shutil.which(command[0], path=here)
    if program is None:
        raise FileNotFoundError(f"{command[0]}: not installed here")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise CheckFailed(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


INK, PAPER, GRID = "#1f2430", "#fbfaf7", "#d8d5cc"
SERIES = ("#00589c", "#b3420e", "#2c6e31", "#7a3e9d")
"""Line colours with at least 4.5 to 1 contrast on the paper; give each line a marker of its own too."""


def plots() -> None:
    """Set matplotlib to the course's style: dark ink on a light card, which reads on a light and on a dark page."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "figure.figsize": (7.2, 3.4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": GRID,
            "lines.linewidth": 2,
            "lines.markersize": 6,
            "axes.prop_cycle": cycler(color=SERIES) + cycler(marker=["o", "s", "^", "D"]),
            "legend.frameon": False,
        }
    )


def _register() -> None:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return
    shell: Any = get_ipython()
    if shell is not None:
        shell.register_magic_function(gpu_cell, "cell", "gpu")


_register()
