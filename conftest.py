"""What a run of tests reports: to the suite as a file, and on the screen what it covered."""

import json
import os
import re
import time
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell

from llminfra.notebook.chapter import code_cells, strict_share, twin_path, with_code

REPORT = "LLMINFRA_JOB_REPORT"


@pytest.fixture
def covered(record_property):
    """Add a line to the table that ends the run: `covered("links", "812 on 10 pages")`."""
    return lambda what, figures: record_property("covered", (what, figures))


@pytest.fixture
def hold():
    """Fail with a list of what is wrong, a line each, and nothing of the test's own code."""

    def hold(problems):
        if problems:
            pytest.fail("\n".join(str(problem) for problem in problems), pytrace=False)

    return hold


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Name a notebook's cell by the chapter's line and its code, and keep of its failure what a reader needs."""
    outcome = yield
    report = outcome.get_result()
    if isinstance(item, IPyNbCell):
        names = _cell_names(item.path.stem)
        if names:
            report.user_properties.append(("name", names[item.cell_num]))


@cache
def _cell_names(stem):
    """Return how messages name the code cells of a chapter; nothing if no chapter is called so."""
    return [cell.name for chapter in with_code() if chapter.stem == stem for cell in code_cells(chapter)]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, exitstatus):
    """Write the report for the suite where it asks for one, else print what was covered."""
    stats = terminalreporter.stats
    said = [tuple(value) for value in _properties(stats, "covered")]
    said += _chapters_covered(report.nodeid for report in _called(stats))
    if REPORT in os.environ:
        outcomes = Counter({kind: len(stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")})
        report = {
            "outcomes": {kind: count for kind, count in outcomes.items() if count},
            "covered": sorted(set(said)),
            "slowest": _slowest(stats),
            "stands": _properties(stats, "stands"),
            "executed": _properties(stats, "executed"),
            "failed": [_failure(report) for kind in ("failed", "error") for report in stats.get(kind, [])],
            "skipped": [(report.nodeid, str(report.longrepr[-1])) for report in stats.get("skipped", [])],
        }
        Path(os.environ[REPORT]).write_text(json.dumps(report), encoding="utf-8")
    elif said:
        terminalreporter.section("covered")
        for what, figures in sorted(set(said)):
            terminalreporter.write_line(f"{what}: {figures}")


def _properties(stats, wanted):
    """Return what the tests that passed recorded under a name."""
    return [value for report in _called(stats) for name, value in report.user_properties if name == wanted]


def _slowest(stats, count=3):
    """Return the tests that took longest, set-up and tear-down counted: name and seconds."""
    seconds, names = Counter(), {}
    for report in (report for kind in ("passed", "failed", "") for report in stats.get(kind, [])):
        seconds[report.nodeid] += report.duration
        names[report.nodeid] = dict(report.user_properties).get("name") or report.nodeid.partition("::")[2]
    return [(names[nodeid], round(took, 1)) for nodeid, took in seconds.most_common(count)]


def _called(stats):
    return [report for report in stats.get("passed", []) if report.when == "call"]


def _chapters_covered(nodeids):
    """Return for each notebook that was executed how many cells, strict outputs and checks it has."""
    executed = {Path(nodeid.partition("::")[0]).stem for nodeid in nodeids if ".ipynb" in nodeid}
    for chapter in with_code():
        if chapter.stem in executed:
            twin = nbformat.read(twin_path(chapter), 4)
            strict, shown = strict_share(twin)
            code = [cell.source for cell in twin.cells if cell.cell_type == "code"]
            checks = sum(source.count("check(") for source in code)
            share = f"{strict} of {shown} outputs compared strictly ({100 * strict / shown:.0f} %)"
            yield chapter.stem, f"{len(code)} cells executed, {share}, {checks} checks"


def _failure(report):
    """Return a failure in a few lines: its claim with the figures if it is one, else how the error ends."""
    name = dict(getattr(report, "user_properties", ())).get("name") or report.nodeid
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(report.longrepr))
    claim = re.search(r"✗ .+?(?=\n\s*\n|\Z)", text, re.S)
    said = claim.group() if claim else "\n".join(re.findall(r"^E .*", text, re.M)[:12]) or text[-1500:]
    now = time.time()  # of a file that could not even be read
    return {"name": name, "said": said, "began": getattr(report, "start", now), "ended": getattr(report, "stop", now)}
