"""The built site and the fixture site, served as a static host would, and a real browser."""

import re
import subprocess
import time
from functools import cache

import browser
import fixture
import pytest
import serve
from checks.source import ROOT

from llminfra.notebook import ledger, stamp


@pytest.fixture(scope="session")
def site():
    """The address of the built site; `make test` builds it first."""
    assert (serve.SITE / "index.html").is_file(), "nothing is built: run make book"
    with serve.served(serve.SITE) as address:
        yield address


@pytest.fixture(scope="session")
def ten_pages():
    """The address of the fixture site."""
    with serve.served(fixture.built()) as address:
        yield address


# What judges a page: when one of these changes, every page is judged again.
JUDGES = [
    "tools/checks/gates.py",
    "tools/checks/lighthouse.py",
    "tools/browser.py",
    "tools/serve.py",
    "package-lock.json",
]


@cache
def judges():
    """The digests of what judges a page."""
    version = subprocess.run([browser.chromium_path(), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        **ledger.surroundings(),
        **{name: stamp.meaning(ROOT / name) for name in JUDGES},
        "browser": version.strip(),
    }


@cache
def shared(site):
    """The digest of what all pages of a site load: their styles and modules, which load one another."""
    files = sorted(path for path in (site / "_static").rglob("*") if path.is_file())
    return stamp.digest("".join(f"{path.name} {stamp.digest(path.read_bytes())}" for path in files))


def page_inputs(site, name):
    """What the gates of a page depend on: its HTML, each file of its site that it names, and what judges it."""
    page = site / f"{name}.html"
    text = page.read_text(encoding="utf-8")
    named = {(page.parent / word).resolve() for word in re.findall(r"""(?:src|href)=["']([^"'#?:]+)""", text)}
    files = sorted(path for path in named if path.is_file() and path.suffix != ".html")
    beside = {path.relative_to(site).as_posix(): stamp.digest(path.read_bytes()) for path in files}
    return {**judges(), **beside, "_static": shared(site), "page": stamp.digest(text)}


class Once:
    """The judgement of a page that stands while nothing it depends on has changed."""

    def __init__(self, what, site, name, expected, record):
        self.what, self.name, self.record, self.began = what, name, record, time.monotonic()
        self.inputs = {**page_inputs(site, name), "expected": expected}
        self.entry = ledger.standing(what, name, self.inputs)
        if self.entry:
            record("stands", (what, self.entry.when))

    def passed(self):
        """Enter it: call this at the end of the test."""
        ledger.enter(self.what, self.name, self.inputs, "make test", time.monotonic() - self.began)
        self.record("executed", self.what)


@pytest.fixture
def once(record_property):
    """`once("gates", folder_of_the_site, "book/index")`: ask its `entry` first, and call `passed()` last."""
    return lambda what, site, name, expected="": Once(what, site, name, expected, record_property)


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    with browser.chromium() as running:
        yield running
