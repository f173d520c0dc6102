"""Two lanes for the whole suite, and a last word on what it covered."""

import nbformat
import pytest
from nbval.plugin import IPyNbCell

from llminfra import twins


def pytest_itemcollected(item):
    """Put notebooks into the lane that starts engines."""
    if isinstance(item, IPyNbCell):
        item.add_marker(pytest.mark.xdist_group("engine"))


def pytest_collection_modifyitems(items):
    """Put that lane first: it is the longer one."""
    items.sort(key=lambda item: not any(mark.args == ("engine",) for mark in item.iter_markers("xdist_group")))


def pytest_terminal_summary(terminalreporter, config):
    """Print what was covered, per chapter."""
    if hasattr(config, "workerinput"):
        return
    terminalreporter.section("covered")
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
