"""Two lanes for the whole suite, and a last word on what it covered."""

import nbformat
import pytest
from nbval.plugin import IPyNbCell

from llminfra import twins


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put notebooks into the lane that starts engines, and that lane first: it is the longer one."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.xdist_group("engine"))
    items.sort(key=lambda item: not any(mark.args == ("engine",) for mark in item.iter_markers("xdist_group")))


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


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Print what was covered: what the tests said of it, and each chapter's cells."""
    if hasattr(config, "workerinput"):
        return
    terminalreporter.section("covered")
    said = sorted(
        tuple(value)
        for report in terminalreporter.stats.get("passed", [])
        if report.when == "call"
        for name, value in report.user_properties
        if name == "covered"
    )
    for what, figures in said:
        terminalreporter.write_line(f"{what}: {figures}")
    for chapter in twins.chapters():
        twin_file = twins.twin_path(chapter)
        if not twin_file.is_file():
            continue
        twin = nbformat.read(twin_file, 4)
        strict, shown = twins.strict_share(twin)
        cells = sum(cell.cell_type == "code" for cell in twin.cells)
        checks = sum(cell.source.count("check(") for cell in twin.cells if cell.cell_type == "code")
        share = f"{strict} of {shown} outputs compared strictly ({100 * strict / shown:.0f} %)"
        terminalreporter.write_line(f"{chapter.stem}: {cells} cells executed, {share}, {checks} checks")
