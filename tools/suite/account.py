"""What a run says of itself: a line as each job ends, and at the end what was covered, what failed and where the time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from llminfra.notebook.ledger import Entry
from suite.busy import Watch
from suite.jobs import Job
from suite.lanes import LANES, Result

BUSY_CORES = 0.25
"""From how many cores on the work of others is said to have disturbed."""
SLOW_S = 20
"""From how many seconds on a cell or test is named in the table of times."""
SHOWN = 4
"""How many failures of one job are told; the others mostly follow from them."""


def ended(result: Result) -> str:
    """Return the line that tells how a job ended."""
    tests = result.report.get("outcomes", {})
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tests.items()))
    return f"{'✓' if result.status == 0 else '✗'} {result.job.name}: {f'{counts} ' if counts else ''}in {result.seconds:.0f} s"


def covered(results: Iterable[Result]) -> list[str]:
    """Return what the tests say they covered, a line each."""
    return sorted({f"{what}: {figures}" for one in results for what, figures in one.report.get("covered", [])})


def skipped(results: Iterable[Result]) -> list[str]:
    """Return each skipped test with its reason."""
    return [f"skipped: {where}: {why}" for one in results for where, why in one.report.get("skipped", [])]


def failures(results: Iterable[Result], watch: Watch) -> list[str]:
    """Return what failed, with its figures and with what the machine did meanwhile: for each failure some lines."""
    lines = []
    for one in results:
        if one.status == 0:
            continue
        failed = one.report.get("failed", [])
        for failure in failed[:SHOWN]:
            lines += [f"✗ {one.job.name}: {failure['name']}", *indented(failure["said"])]
            lines.append(f"  {disturbed(watch.cores(failure['began'], failure['ended']))}")
        if len(failed) > SHOWN:
            lines.append(f"  and {len(failed) - SHOWN} more of {one.job.name}")
        if not failed:
            lines += [f"✗ {one.job.name} exited with status {one.status}", *indented(one.log.strip()[-2000:])]
    return lines


def indented(text: str) -> list[str]:
    """Return a text's lines, indented."""
    return [f"  {line}" for line in text.splitlines()]


def disturbed(cores: float | None) -> str:
    """Return in words how much of the machine others used meanwhile."""
    if cores is None:
        return "how busy the machine was is not known"
    other = (
        f"other programs used {cores:.1f} of its {LANES} cores"
        if LANES > 1
        else f"other programs used {cores:.1f} cores"
    )
    return (
        f"the machine was busy meanwhile: {other}"
        if cores >= BUSY_CORES
        else f"the machine was otherwise idle: {other}"
    )


def remembered(
    executed: Iterable[tuple[str, str]], stands: Iterable[tuple[Job, Entry]], results: Iterable[Result]
) -> list[str]:
    """Return what was executed now and what stands from when: notebooks, and the gates of pages by their number."""
    lines = [f"executed now: {name}, {how}" for name, how in executed]
    lines += [f"stands: {job.name}, since {entry.when} by {entry.by} ({entry.seconds:.0f} s)" for job, entry in stands]
    reports = [one.report for one in results]
    now = Counter(what for report in reports for what in report.get("executed", []))
    lines += [f"executed now: {what} of {count} pages" for what, count in sorted(now.items())]
    since: dict[str, list[str]] = {}
    for what, when in (pair for report in reports for pair in report.get("stands", [])):
        since.setdefault(what, []).append(when)
    return lines + [f"stands: {what} of {len(w)} pages, the oldest since {min(w)}" for what, w in sorted(since.items())]


def times(phases: list[tuple[str, float, list[Result]]], total_s: float) -> list[str]:
    """Return the table of where the time went: phases, and in them the jobs and how full their lanes were."""
    lines = [f"{'':2}{'seconds':>8}  what"]
    for name, seconds, results in phases:
        used = sum(one.seconds for one in results)
        full = f", lanes {100 * used / (LANES * seconds):.0f} % full" if len(results) > 1 and seconds > 1 else ""
        lines.append(f"{'':2}{seconds:8.0f}  {name}{full}")
        for one in sorted(results, key=lambda one: -one.seconds) if len(results) > 1 else []:
            lines.append(f"{'':2}{one.seconds:8.0f}    lane {one.lane + 1}: {one.job.name}")
            slowest = [pair for pair in one.report.get("slowest", []) if pair[1] >= SLOW_S]
            lines += [f"{'':2}{took:8.0f}      {name[:90]}" for name, took in slowest]
    return [*lines, f"{'':2}{total_s:8.0f}  in all, {LANES} lanes, {time.strftime('%Y-%m-%d %H:%M')}"]
