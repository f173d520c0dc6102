"""The built site and the fixture site, served as a static host would, and a real browser."""

import browser
import fixture
import pytest
import serve


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


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    with browser.chromium() as running:
        yield running
