"""What the gates of test_gates.py do not ask of the built pages: the door, the theme, the menu, outputs, and how code is shown."""

import gzip
import io
import re
import sys
import urllib.request
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import fixture
import pytest
import serve
from bs4 import BeautifulSoup
from pygments.lexers import get_lexer_by_name
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Text

pytestmark = pytest.mark.heavy

CHAPTERS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "book").glob("[0-9][0-9]-*.md"))
BLOCKS = "article .highlight pre"


@contextmanager
def opened(chromium, url, *, width=1280, scheme="light"):
    """A page in a fresh context."""
    with chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(url, wait_until="networkidle")
        yield page


def soup(path):
    """A built page, parsed."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_the_door_leads_to_the_start_page(chromium, site):
    with opened(chromium, f"{site}/") as page:
        page.wait_for_url("**/book/index.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_colours(chromium, site, scheme):
    with opened(chromium, f"{site}/book/index.html", scheme=scheme) as page:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) == (scheme == "light")


def test_the_theme_button_switches_to_dark(chromium, site):
    with opened(chromium, f"{site}/book/index.html") as page:
        button, body = page.locator("button.theme-toggle:visible").first, page.locator("body")
        for _ in range(3):
            if body.get_attribute("data-theme") == "dark":
                break
            button.press("Enter")
        assert body.get_attribute("data-theme") == "dark"


def test_the_menu_opens_by_keyboard_on_a_phone(chromium, site):
    inside = "e => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && r.top >= 0 }"
    with opened(chromium, f"{site}/book/index.html", width=360) as page:
        link = page.locator(".sidebar-drawer a", has_text="Glossary")
        assert not link.evaluate(inside)
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("!!document.activeElement.closest('.sidebar-drawer')"):
                break
        page.wait_for_function(f"one => ({inside})(one)", arg=link.element_handle())


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_holds_its_outputs_and_says_where_they_come_from(name):
    page = soup(serve.SITE / "book" / f"{name}.html")
    assert len(page.select(".cell_output")) >= 20
    assert all(block.get_text().strip() for block in page.select(".cell_output pre"))
    assert sum("✓" in block.get_text() for block in page.select(".cell_output pre")) >= 10
    assert page.select_one("dl.chapter-header").get_text().count("$") >= 3
    assert "Every output on this page was made on" in page.select_one(".twin-stamp").get_text()
    assert page.select(".cell_output img")


def test_a_description_may_hold_any_mark(ten_pages):
    for name, chapter in fixture.CHAPTERS.items():
        page = soup(fixture.built() / "book" / f"{name}.html")
        assert page.select_one("meta[name=description]")["content"] == fixture.description(chapter)


# Code: fewer elements than Pygments makes, laid out only near the reader; neither may be seen.


@pytest.fixture
def lexers(monkeypatch):
    """The extension that shows code."""
    monkeypatch.syspath_prepend(str(fixture.ROOT / "book" / "_ext"))
    import lexers

    yield lexers
    del sys.modules["lexers"]


class Letters(HTMLParser):
    """Each letter of a formatted block that is not white space, with the class of the span around it."""

    def __init__(self, html):
        super().__init__()
        self.around, self.found, self.spans = [""], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.around.append(dict(attrs).get("class", ""))
        self.spans += tag == "span"

    def handle_endtag(self, tag):
        self.around.pop()

    def handle_data(self, text):
        self.found += [(letter, self.around[-1]) for letter in text if not letter.isspace()]


CODE = {
    "python": Path(__file__).read_text(encoding="utf-8"),
    "yaml": (fixture.ROOT / "deploy" / "kubernetes" / "vllm.yaml").read_text(encoding="utf-8"),
    "bash": 'export A=1 B="two $A"; for x in *.md; do\n  grep -c "$x" <<< "${B%%o}" | tee /dev/null  # both\ndone\n',
    "pycon": ">>> [x for x in y]\n[]\n",
    "json": '{"a": [1, 2.5, null], "b": "c\\n"}\n',
}


@pytest.mark.parametrize("language", CODE)
def test_each_letter_of_code_keeps_its_colours_in_fewer_spans(lexers, covered, language):
    names = ("a11y-high-contrast-light", lexers.DARK)
    tokens = list(get_lexer_by_name(language).get_tokens(CODE[language]))
    formatter = type("Formatter", (lexers.Joined,), {"classes": lexers.classes(*names)})(style=names[0])
    output = io.StringIO()
    formatter.format(tokens, output)
    letters = Letters(output.getvalue())
    kinds = {short: kind for kind, short in STANDARD_TYPES.items()}
    seen = [(letter, look(kinds[short.removeprefix("highlight")], names)) for letter, short in letters.found]
    assert seen == [(letter, look(kind, names)) for kind, text in tokens for letter in text if not letter.isspace()]
    words = sum(not text.isspace() for _, text in tokens)
    assert letters.spans < 0.6 * words
    covered("code", f"{language}: {letters.spans} spans for {words} tokens")


def look(kind, names):
    """How some styles show a type of token: where they say nothing, as text."""
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    styles = [get_style_by_name(name) for name in names]
    shown = [{key: value for key, value in style.style_for_token(kind).items() if value} for style in styles]
    return [{**style.style_for_token(Text), **own} for style, own in zip(styles, shown, strict=True)]


SKIPPED = "all => all.filter(pre => pre.firstElementChild && !pre.firstElementChild.checkVisibility({ contentVisibilityAuto: true })).length"
HEIGHTS = "all => all.map(pre => pre.getBoundingClientRect().height)"
ALL_LAID_OUT = "article pre { content-visibility: visible !important; }"


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("name", CHAPTERS)
def test_code_takes_the_same_room_before_it_is_laid_out(chromium, site, name, width):
    with opened(chromium, f"{site}/book/{name}.html", width=width) as page:
        page.eval_on_selector_all("details", "all => all.forEach(fold => { fold.open = true; })")
        blocks = page.locator(BLOCKS)
        assert blocks.evaluate_all(SKIPPED) > 20
        before = blocks.evaluate_all(HEIGHTS)
        page.add_style_tag(content=ALL_LAID_OUT)
        # What is skipped is decided anew with each frame, so the style holds from the next one on.
        page.wait_for_function(f"() => ({SKIPPED})([...document.querySelectorAll('{BLOCKS}')]) === 0", timeout=10_000)
        assert blocks.evaluate_all(HEIGHTS) == pytest.approx(before, abs=0.5)


AWAY = """([id]) => {
  const section = document.getElementById(id), margin = parseFloat(getComputedStyle(section).scrollMarginTop);
  return Math.abs(section.getBoundingClientRect().top - margin);
}"""


@pytest.mark.parametrize("way", ["address", "contents"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_link_to_a_place_far_below_leads_there(chromium, site, name, way):
    url = f"{site}/book/{name}.html"
    with opened(chromium, url, width=1350) as page:
        link = page.locator(".toc-tree a").nth(-5)
        place = link.get_attribute("href")
        if way == "address":
            page.goto(f"{url}{place}")
        else:
            link.click()
        page.wait_for_function(f"(id) => ({AWAY})(id) < 2", arg=[place.removeprefix("#")])


def test_what_is_not_laid_out_is_found_and_printed(chromium, site):
    with opened(chromium, f"{site}/book/{CHAPTERS[0]}.html") as page:
        blocks = page.locator(BLOCKS)
        last = blocks.last.evaluate("pre => pre.textContent.trim().split('\\n')[0]")
        assert page.evaluate("words => find(words)", last)
        page.wait_for_function("getSelection().anchorNode.parentElement.getBoundingClientRect().top < innerHeight")
        page.emulate_media(media="print")
        assert blocks.evaluate_all(SKIPPED) == 0


def test_it_is_served_compressed_with_validators(site):
    request = urllib.request.Request(f"{site}/book/index.html", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        packed, etag = answer.read(), answer.headers["ETag"]
        assert answer.headers["Content-Encoding"] == "gzip" and "utf-8" in answer.headers["Content-Type"]
    plain = (serve.SITE / "book" / "index.html").read_bytes()
    assert gzip.decompress(packed) == plain and len(packed) < len(plain) / 2
    request.add_header("If-None-Match", etag)
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        urllib.request.urlopen(request)
    assert unchanged.value.code == 304
    with pytest.raises(urllib.error.HTTPError) as outside:
        urllib.request.urlopen(f"{site}/%2e%2e/%2e%2e/README.md")
    assert outside.value.code == 404
