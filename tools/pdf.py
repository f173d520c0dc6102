"""Print each chapter of the built site to _build/pdf/NN-name.pdf with Chromium: tagged, with bookmarks and page numbers."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import browser
import serve
from playwright.sync_api import Browser, Error

FOOTER = (
    '<div style="font: 8px sans-serif; color: #444; width: 100%; margin: 0 17mm; display: flex; '
    'justify-content: space-between"><span class="title"></span>'
    '<span><span class="pageNumber"></span> / <span class="totalPages"></span></span></div>'
)
# A block of up to 25 lines is kept whole; style sheets cannot count lines.
PREPARE = """async () => {
  for (const pre of document.querySelectorAll("pre")) pre.classList.toggle("short", pre.innerText.split("\\n").length < 26);
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode()));
}"""


def chapters(site: Path) -> list[Path]:
    """Return the pages that are chapters, `book/NN-name.html`, in order."""
    return sorted((site / "book").glob("[0-9][0-9]-*.html"))


def print_page(running: Browser, url: str) -> bytes:
    """Return a page as a PDF: A4 as print.css sets it, title and page number below."""
    with running.new_context(color_scheme="light", reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(url, wait_until="networkidle")
        page.evaluate(PREPARE)
        return page.pdf(
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            tagged=True,
            outline=True,
        )


def print_site(running: Browser, site: Path, output: Path) -> None:
    """Print every chapter of a built site into a folder, and say of each how many pages it has."""
    output.mkdir(parents=True, exist_ok=True)
    with serve.served(site) as address:
        for chapter in chapters(site):
            pdf = print_page(running, f"{address}/book/{chapter.name}")
            target = output / f"{chapter.stem}.pdf"
            part = target.with_suffix(".part")
            part.write_bytes(pdf)
            part.replace(target)
            print(f"{target}: {pages(pdf)} pages, {len(pdf) / 1e6:.1f} MB", flush=True)


def pages(pdf: bytes) -> int:
    """Return how many pages a PDF of Chromium's has."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def main() -> int:
    """Print; 2 with one line if nothing is built or there is no Chromium."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=serve.SITE.parent / "pdf")
    output = parser.parse_args().output
    if not chapters(serve.SITE):
        print("Nothing is built yet: run make book", file=sys.stderr)
        return 2
    try:
        with browser.chromium() as running:
            print_site(running, serve.SITE, output)
    except Error as error:
        print(
            f"Chromium: {str(error).splitlines()[0]}; install chromium, or run .venv/bin/playwright install chromium",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
