"""Every built page in a real browser: it is whole, quiet, narrow enough, and the keyboard reaches all of it."""

import gzip
import itertools
import re
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["index", *sorted(f"book/{path.stem}" for path in (ROOT / "book").glob("*.md"))]
CHAPTERS = [page for page in PAGES if re.match(r"book/\d\d-", page)]


class Page:
    """A page opened in a fresh browser context, with all it said and asked for."""

    def __init__(self, chromium, site, name, *, width=1280, scheme="light", scripts=True):
        self.context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        self.page = self.context.new_page()
        self.said, self.asked, self.failed = [], [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", lambda response: self.failed.append(response.url) if response.status >= 400 else None)
        self.page.goto(f"{site}/{name}.html", wait_until="networkidle")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_asks_nobody_else(chromium, site, name):
    with Page(chromium, site, name) as opened:
        assert opened.said == [] and opened.failed == []
        assert [url for url in opened.asked if not url.startswith((site, "data:"))] == []
        page = opened.page
        if name == "index":
            page.wait_for_url("**/book/index.html")
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.title()
        assert len(page.locator('meta[name="description"]').get_attribute("content")) > 40
        levels = [
            int(tag[1])
            for tag in page.eval_on_selector_all("article :is(h1,h2,h3,h4)", "all => all.map(h => h.tagName)")
        ]
        assert levels.count(1) == 1 and levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert page.eval_on_selector_all("img", "all => all.filter(i => !i.alt).map(i => i.src)") == []


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone(chromium, site, name, width):
    with Page(chromium, site, name, width=width) as opened:
        wide = opened.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_colours(chromium, site, scheme):
    with Page(chromium, site, PAGES[1], scheme=scheme) as opened:
        red, green, blue = map(
            int, re.findall(r"\d+", opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
        )
        assert (red + green + blue > 384) == (scheme == "light")


def test_the_theme_button_switches_to_dark(chromium, site):
    with Page(chromium, site, "book/index") as opened:
        button = opened.page.locator("button.theme-toggle:visible").first
        for _ in range(3):
            if opened.page.locator("body").get_attribute("data-theme") == "dark":
                break
            button.press("Enter")
        assert opened.page.locator("body").get_attribute("data-theme") == "dark"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_its_outputs_without_scripts(chromium, site, name):
    with Page(chromium, site, name, scripts=False) as opened:
        page = opened.page
        outputs = page.locator(".cell_output")
        assert outputs.count() >= 20
        assert all(text.strip() for text in page.locator(".cell_output pre").all_inner_texts())
        assert page.get_by_text("✓").count() >= 10
        assert page.locator("dl.chapter-header").inner_text().count("$") >= 3
        assert "Every output on this page was made on" in page.locator(".twin-stamp").inner_text()
        assert page.locator(".cell_output img").count() >= 1


@pytest.mark.parametrize("name", ["book/index", *CHAPTERS])
def test_the_keyboard_reaches_content_and_shows_where_it_is(chromium, site, name):
    with Page(chromium, site, name) as opened:
        page = opened.page
        places, unseen = [], []
        for _ in range(60):
            page.keyboard.press("Tab")
            where = page.evaluate(
                """() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
                return [e.closest('article') ? 'article' : e.closest('.sidebar-drawer') ? 'nav' : 'other', e.outerHTML.slice(0, 80),
                        s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0 || e.matches('input'), r.width > 0] }"""
            )
            places.append(where[0])
            if where[0] != "other" and not where[2]:
                unseen.append(where[1])
            if places.count("article") >= 3:
                break
        assert "skip" in page.evaluate("document.querySelector('a').className")
        assert {"nav", "article"} <= set(places)
        assert unseen == []


def test_the_menu_opens_by_keyboard_on_a_phone(chromium, site):
    inside = "e => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && r.top >= 0 }"
    with Page(chromium, site, "book/index", width=360) as opened:
        page = opened.page
        link = page.locator(".sidebar-drawer a", has_text="Glossary")
        assert not link.evaluate(inside)
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("!!document.activeElement.closest('.sidebar-drawer')"):
                break
        page.wait_for_timeout(500)
        assert link.evaluate(inside)


@pytest.mark.parametrize("name", PAGES)
def test_internal_links_lead_somewhere(chromium, site, name):
    html = ROOT / "_build" / "html"
    with Page(chromium, site, name) as opened:
        links = set(opened.page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)"))
    for link in links:
        if not link.startswith(site):
            continue
        path, _, anchor = link.removeprefix(f"{site}/").partition("#")
        target = html / (path or "index.html")
        assert target.is_file(), link
        assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), link


def test_it_is_served_compressed_with_validators(site):
    request = urllib.request.Request(f"{site}/book/index.html", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        packed, etag = answer.read(), answer.headers["ETag"]
        assert answer.headers["Content-Encoding"] == "gzip" and "utf-8" in answer.headers["Content-Type"]
    plain = (ROOT / "_build" / "html" / "book" / "index.html").read_bytes()
    assert gzip.decompress(packed) == plain and len(packed) < len(plain) / 2
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        urllib.request.urlopen(
            urllib.request.Request(
                f"{site}/book/index.html", headers={"Accept-Encoding": "gzip", "If-None-Match": etag}
            )
        )
    assert unchanged.value.code == 304
    with pytest.raises(urllib.error.HTTPError) as outside:
        urllib.request.urlopen(f"{site}/%2e%2e/%2e%2e/README.md")
    assert outside.value.code == 404
