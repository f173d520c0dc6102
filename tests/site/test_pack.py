"""What a reader takes along: chapters as PDF, and the whole site as a zip that any static server opens."""

import re
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import fixture
import offline
import pdf
import pytest
import serve

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
PAPER_PX = 665  # A4 is 794 px wide; print.css leaves 17 mm, 64 px, on each side
CODE = "02-continuous-batching"  # its command line is long
NOTEBOOK = "09-lora-adapters"
# What sticks out of the paper to the right, by more than a rounding.
TOO_WIDE = """(width) => [...document.querySelectorAll("article *:not(svg *, math *)")]
  .filter((part) => part.checkVisibility())
  .filter((part) => {
    const {left, width: own} = part.getBoundingClientRect();
    const hides = getComputedStyle(part).overflowX !== "visible" && part.scrollWidth > part.clientWidth + 1;
    return hides || left + Math.max(own, part.scrollWidth) > width + 1;
  })
  .map((part) => part.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def printed(chromium, ten_pages):
    """Two pages of the fixture site as PDF."""
    return {name: pdf.print_page(chromium, f"{ten_pages}/book/{name}.html") for name in (CODE, NOTEBOOK)}


def streams(data):
    """Return what a PDF's compressed streams hold."""
    found = re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)endstream", data, re.S)
    return b"\n".join(zlib.decompressobj().decompress(stream) for stream in found)


def outline(data):
    """Return the bookmarks of a PDF, in the order of the page."""
    found = re.findall(rb"(\d+) 0 obj\n<</Title \((.*?)\)\n/Dest", data)
    return [title.decode() for _, title in sorted(found, key=lambda entry: int(entry[0]))]


def test_a_chapter_prints_to_tagged_pages_with_bookmarks_and_text(printed, covered):
    for name, chapter in {CODE: fixture.CHAPTERS[CODE], NOTEBOOK: fixture.LORA}.items():
        data = printed[name]
        assert data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF")
        assert pdf.pages(data) >= 2
        assert b"/StructTreeRoot" in data and b"/MarkInfo" in data and b"/Lang (en)" in data
        assert outline(data)[: len(chapter["sections"]) + 1] == [chapter["title"], *chapter["sections"]]
        assert re.search(rb"MediaBox \[0 0 59\d(\.\d+)? 84\d", data), "not A4"
        assert streams(data).count(b"BT\n") > 20, "the pages hold no text"
    covered("PDF", f"{len(printed)} pages of the fixture site printed, {sum(map(pdf.pages, printed.values()))} sheets")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["ten pages", "course"])
def test_on_paper_nothing_is_cut_off_nothing_is_folded_and_the_ground_is_white(
    chromium, ten_pages, site, hold, scheme, where
):
    built = fixture.built() if where == "ten pages" else serve.SITE
    address = ten_pages if where == "ten pages" else site
    with chromium.new_context(viewport={"width": PAPER_PX, "height": 1000}, color_scheme=scheme) as context:
        page = context.new_page()
        page.emulate_media(media="print")
        problems = []
        for path in pdf.chapters(built):
            page.goto(f"{address}/book/{path.name}", wait_until="networkidle")
            problems += [f"{path.name}: cut off on paper: {part}" for part in page.evaluate(TOO_WIDE, PAPER_PX)]
            folded = (
                "all => all.filter(d => [...d.children].slice(1).some(c => !c.checkVisibility())).map(d => d.innerText)"
            )
            problems += [
                f"{path.name}: folded on paper: {text}" for text in page.eval_on_selector_all("details", folded)
            ]
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            if ground != "rgb(255, 255, 255)":
                problems.append(f"{path.name}: printed on {ground}, not on white")
            for part in (".sidebar-drawer", ".toc-drawer", ".mobile-header", ".search-open", "footer button"):
                problems += [f"{path.name}: {part} is printed"] * (page.locator(f"{part}:visible").count() > 0)
    hold(problems)


def test_the_pack_is_the_same_bytes_each_time_without_leftovers(tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    for target in (first, second):
        offline.pack(fixture.built(), target)
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert names[0] == "llm-infrastructure/README.txt" and names[1:] == sorted(names[1:])
    assert not [name for name in names if re.search(r"objects\.inv|\.buildinfo|_sources", name)]
    assert {f"llm-infrastructure/{name}.html" for name in fixture.names()} <= set(names)


@contextmanager
def plain_server(folder):
    """Python's own static server of a folder, on a free port; gone when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("below", ["", "courses/llm/"])
def test_unpacked_the_site_works_from_a_plain_server_at_any_path(chromium, tmp_path, hold, covered, below):
    offline.pack(fixture.built(), tmp_path / "pack.zip")
    zipfile.ZipFile(tmp_path / "pack.zip").extractall(tmp_path / "www" / below)
    root = tmp_path / "www" / below / offline.NAME
    served = tmp_path / "www" if below else root
    with plain_server(served) as address, chromium.new_context() as context:
        start = f"{address}/{root.relative_to(served).as_posix()}/".replace("/./", "/")
        problems = []

        def only_here(route):
            if route.request.url.startswith(start):
                route.continue_()
            else:
                problems.append(f"asks for {route.request.url}")
                route.abort()

        page = context.new_page()
        page.route("**/*", only_here)
        page.on("console", lambda message: problems.append(f"{page.url}: console: {message.text}"))
        page.on("response", lambda got: problems.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
        page.goto(start)
        page.wait_for_url("**/book/index.html")
        for name in fixture.names():
            page.goto(f"{start}{name}.html", wait_until="networkidle")
            images = page.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.src)")
            problems += [f"{name}: {image} is not there" for image in images]
            for widget in page.locator(".widget").all():
                widget.scroll_into_view_if_needed()
                widget.and_(page.locator("[data-ready]")).wait_for()
        page.keyboard.press("/")
        page.fill("#search-field", "readiness probe")
        page.locator("#search-results [role=option]").first.click()
        page.wait_for_url(f"{start}book/08-kubernetes-autoscaling.html#*")
        hold(problems)
    covered(f"offline pack at /{below}", f"{len(fixture.names())} pages and search, from a plain static server")


@pytest.mark.parametrize("tool", ["pdf", "offline"])
def test_without_a_built_site_the_tools_say_so(monkeypatch, capsys, tmp_path, tool):
    module = {"pdf": pdf, "offline": offline}[tool]
    monkeypatch.setattr(serve, "SITE", tmp_path)
    monkeypatch.setattr(offline, "SITE", tmp_path)
    monkeypatch.setattr(sys, "argv", [tool])
    assert module.main() == 2
    assert capsys.readouterr().err == "Nothing is built yet: run make book\n"
