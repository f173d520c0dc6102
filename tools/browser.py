"""The Chromium that reads the built pages: Debian's where there is one, else Playwright's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from playwright.sync_api import Browser, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--disable-quic"]


PLAYWRIGHTS = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"


@cache
def chromium_path() -> str:
    """Return the program: Debian's, what CHROMIUM names, or the one that Playwright installs."""
    found = shutil.which("chromium") or os.environ.get("CHROMIUM")
    # Asked in a process of its own: a thread may have only one Playwright.
    return found or subprocess.run([sys.executable, "-c", PLAYWRIGHTS], capture_output=True, text=True).stdout.strip()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a headless browser. While it is there, this thread has an event loop. playwright's Error if there is none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
