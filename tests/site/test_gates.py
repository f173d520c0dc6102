"""Every page is what its readers need, in a real Chromium; and each gate refuses the page that it is there for."""

import re
import time

import fixture
import psutil
import pytest
import serve
from checks import gates, lighthouse

pytestmark = pytest.mark.heavy

# The door at the site's root is left out: it sends its reader on to the start page at once.
COURSE = sorted(
    path.relative_to(serve.SITE).with_suffix("").as_posix()
    for pages in ("book/*.html", "exercises/*/*.html")
    for path in serve.SITE.glob(pages)
)
ONE_OF_A_KIND = ["index", "02-vllm-deployment", "course-map", "glossary"]


def test_the_course_has_pages():
    assert {f"book/{name}" for name in ONE_OF_A_KIND} <= set(COURSE), "nothing is built: run make book"


@pytest.mark.parametrize("name", COURSE)
def test_a_page_of_the_course_passes_every_gate(chromium, site, hold, covered, once, name):
    judged = once("gates", serve.SITE, name)
    if judged.entry:
        return
    hold(gates.inspect(chromium, site, name))
    with gates.visit(chromium, f"{site}/{name}.html") as opened:
        requests, plain, whole = gates.transfer(opened.page)
    covered("gates", f"{name}: {requests} requests, {plain / 1000:.0f} KB, {whole / 1000:.0f} KB with its figures")
    judged.passed()


@pytest.mark.parametrize("name", fixture.names())
def test_a_page_of_the_fixture_site_passes_every_gate(chromium, ten_pages, hold, once, name):
    judged = once("gates of the fixture", fixture.built(), name)
    if judged.entry:
        return
    hold(gates.inspect(chromium, ten_pages, name))
    judged.passed()


@pytest.mark.parametrize("form", ["mobile", "desktop"])
@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_lighthouse_has_nothing_to_say(site, hold, covered, once, name, form):
    judged = once(f"Lighthouse, {form}", serve.SITE, f"book/{name}")
    if judged.entry:
        return
    report = lighthouse.audit(f"{site}/book/{name}.html", form=form)
    hold(report.faults)
    assert report.scores == dict.fromkeys(lighthouse.READERS, 100)
    covered("Lighthouse", f"{name}, {form}: accessibility, best practices and SEO 100")
    judged.passed()


# A page on which nothing is wrong; each fault below is put into it.
GOOD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A good page</title>
<meta name="description" content="A page on which nothing is wrong until a test puts something in.">
<link rel="icon" href="data:,">
<style>
body { font: 16px sans-serif; color: #222; background: #fff; margin: 1em; }
a { color: #003a70; display: inline-block; min-height: 24px; }
a:focus { outline: 3px solid #003a70; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } a { color: #9cf; } }
/* style */
</style>
</head>
<body>
<header><nav aria-label="Site"><a href="#content">Skip to the content</a></nav></header>
<main id="content">
<h1>Title</h1>
<p>Words, and <a href="#two">a link to a section</a>.</p>
<h2 id="two">Section</h2>
<!-- body -->
<p>More words, and <a href="#content">another link</a>.</p>
</main>
</body>
</html>
"""
RED = "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40'><rect width='40' height='40' fill='red'/></svg>"
# After the first paint, since nothing shifts before it: a place that was empty takes room.
SHIFT = """<div id="late"></div><p style="height: 300px">Low.</p><script>
if ({}) new PerformanceObserver(() => setTimeout(() => (late.style.height = "200px"), 50)).observe({{ type: "paint", buffered: true }});
</script>"""
SKIP = '<a href="#content">Skip to the content</a>'
MENU = '<aside aria-label="Menu"><a href="good.html">Home page</a></aside>'
# What is put in, where, and what must be said of it.
BAD = {
    "another host": ("body", '<img src="https://counter.example/x.png" alt="A red square that counts">', "asks another host for https://counter"),
    "a hint to another host": ("head", '<link rel="preconnect" href="https://fonts.example">', "asks another host for https://fonts"),
    "a socket to another host": ("body", "<script>new WebSocket('wss://counter.example/')</script>", "asks another host for wss://counter"),
    "a missing file": ("head", '<script src="gone.js"></script>', r"asks for gone\.js \(404\), which is not there"),
    "a message": ("body", "<script>console.log('here')</script>", "the console says log: here"),
    "an error": ("body", "<script>nothing.at.all()</script>", "the console says error: .*nothing is not defined"),
    "a shift": ("body", SHIFT.format("true"), "at 1400 px wide, .* moved while the page loaded"),
    "a shift on a phone": ("body", SHIFT.format("innerWidth < 600"), "at 320 px wide, .* moved while the page loaded"),
    "too wide": ("body", "<p style='width: 700px'>Wide.</p>", "is 7.. px wide on a phone of 320 px, because of .*700px"),
    "no words for an image": ("body", '<img src="red.svg" width="40" height="40">', "image red.svg has no alternative text"),
    "a file name for words": ("body", '<img src="red.svg" width="40" height="40" alt="red.svg">', "is only a file name"),
    "too few words": ("body", '<img src="red.svg" width="40" height="40" alt="red square">', "too short to say what it shows"),
    "a drawing without words": ("body", '<svg width="40" height="40"><rect width="40" height="40"/></svg>', "image <svg.* has no alternative text"),
    "a broken image": ("body", '<img src="blue.svg" width="40" height="40" alt="A square that is not there">', "blue.svg does not load"),
    "no language": (' lang="en"', "", "axe html-has-lang"),
    "no title": ("<title>A good page</title>", "", "has no title"),
    "no description": ('name="description"', 'name="keywords"', "needs one description"),
    "two titles": ("body", "<h1>Another</h1>", "needs one h1, before all other headings; .*H1, H2, H1"),
    "a level left out": ("body", "<h4>Deep</h4>", "axe heading-order"),
    "pale": ("body", "<p style='color: #999'>Pale.</p>", r"axe color-contrast: .*needs 4\.5:1$"),
    "pale in the dark": ("style", "@media (prefers-color-scheme: dark) and (width > 600px) { h2 { color: #444; } }", "color-contrast: .*in dark$"),
    "pale in the dark on a phone": ("style", "@media (prefers-color-scheme: dark) and (width < 600px) { h2 { color: #444; } }", "color-contrast: .*in dark on a phone"),
    "small to touch": ("body", "<p><button class='tiny'>a</button><button class='tiny'>b</button></p><style>.tiny { all: unset; width: 9px }</style>", "axe target-size"),
    "a nameless button": ("body", "<button style='width: 40px; height: 40px'></button>", "axe button-name"),
    "focus unseen": ("style", "a:focus { outline: none; }", "nothing shows that .* has the focus"),
    "focus goes back": (SKIP, SKIP.replace(">", ' tabindex="1">', 1) + '<p id="first"><a href="#first" tabindex="3">One</a> <a href="#first" tabindex="2">Two</a></p>', "Tab goes back from .*Two to .*One"),
    "focus goes up": ("body", '<div style="display: flex; flex-direction: column-reverse"><p><a href="#two">Low</a></p><p><a href="#two">High</a></p></div>', "Tab goes up from .*Low to .*High"),
    "focus does not come": ("body", '<a href="#two" onfocus="this.blur()">Shy</a>', "Tab never comes to .*another link"),
    "focus on what is hidden": ("body", "<a href='#two' style='position: absolute; left: -999px'>Away</a>", "hidden or covered"),
    "no way past the menu": (SKIP, '<a href="good.html">Home</a>', "skips to the content"),
    "words by script": (
        "body",
        "<p id='made'></p><script>made.textContent = 'Only scripts bring this.'</script>",
        "without scripts, “Only scripts bring this.” is missing",
    ),
    "a menu by script": (SKIP, f"{SKIP}<span id='made'></span><script>made.innerHTML = '<a href=good.html>Home page</a>'</script>", "without scripts, the link to good.html is missing"),
    "a menu that only scripts open": ("</nav>", f"</nav>{MENU}<style>nav, aside {{ display: block }} @media (width < 600px) {{ aside, nav {{ position: fixed; left: -20em; }} }}</style>", "without scripts, no label or summary"),
    "too heavy": ("body", "<script src='heavy.js'></script>", "weighs 2.. KB without its figures, at most 180 KB"),
    "figures too heavy": ("body", "<img src='heavy.svg' width='40' height='40' alt='A red square, with much noise'>", "at most 300 KB"),
    "widgets too heavy": ("body", "<script src='_static/micropython.mjs'></script>", "weighs 5.. KB in its widgets, at most 300 KB"),
    "a widget with many files": ("body", "".join(f"<script src='_static/micropython.n{n}'></script>" for n in range(6)), "takes 6 requests for its widgets"),
    "too many requests": ("head", "".join(f"<script src='small.js?{n}'></script>" for n in range(16)), "takes 1. requests"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory):
    """The good page and all bad ones, by number."""
    folder = tmp_path_factory.mktemp("bad", numbered=False)
    noise = "".join(f"{n * 2654435761 % 2**32:08x}" for n in range(60_000))  # compresses to about half
    (folder / "red.svg").write_text(RED)
    (folder / "heavy.svg").write_text(RED.replace("<rect", f"<!--{noise * 2}--><rect"))
    (folder / "heavy.js").write_text(f"// {noise}\n")
    (folder / "small.js").write_text("// nothing\n")
    (folder / "_static").mkdir()
    (folder / "_static" / "micropython.mjs").write_text(f"// {noise * 2}\n")
    for n in range(6):
        (folder / "_static" / f"micropython.n{n}").write_text("// nothing\n")
    (folder / "good.html").write_text(GOOD)
    marks = {"body": "<!-- body -->", "style": "/* style */", "head": '<link rel="icon" href="data:,">'}
    for number, (place, fault, _) in enumerate(BAD.values()):
        mark = marks.get(place, place)
        assert GOOD.count(mark) == 1
        keep = "" if place not in marks else mark
        (folder / f"bad{number}.html").write_text(GOOD.replace(mark, f"{keep}\n{fault}"))
    return folder


@pytest.fixture(scope="module")
def bad_pages(bad_folder):
    """Their address."""
    with serve.served(bad_folder) as address:
        yield address


def test_a_good_page_passes(chromium, bad_pages, hold):
    hold(gates.inspect(chromium, bad_pages, "good"))
    report = lighthouse.audit(f"{bad_pages}/good.html")
    assert set(report.scores) == set(lighthouse.READERS)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_page_is_refused(chromium, bad_folder, bad_pages, once, name):
    number, words = list(BAD).index(name), BAD[name][2]
    judged = once("refusal", bad_folder, f"bad{number}", words)
    if judged.entry:
        return
    said = [str(problem) for problem in gates.inspect(chromium, bad_pages, f"bad{number}")]
    assert any(re.search(words, problem) for problem in said), said
    judged.passed()


@pytest.mark.parametrize(
    ("fault", "words"), [("no words for an image", "image-alt"), ("no description", "meta-description")]
)
def test_lighthouse_names_what_it_refuses(bad_pages, fault, words):
    report = lighthouse.audit(f"{bad_pages}/bad{list(BAD).index(fault)}.html")
    assert min(report.scores.values()) < 100 and any(words in said for said in report.faults), report


def test_what_lighthouse_cannot_judge_is_an_error(bad_pages):
    with pytest.raises(RuntimeError, match="Lighthouse could not judge"):
        lighthouse.audit(f"{bad_pages}/no-such-page.html")


def test_a_lighthouse_that_does_not_end_is_ended_and_said(bad_pages, monkeypatch):
    monkeypatch.setattr(lighthouse, "SECONDS", 1)
    with pytest.raises(RuntimeError, match=r"could not judge .*: not done after 1 s, 2 times"):
        lighthouse.audit(f"{bad_pages}/good.html")
    deadline = time.monotonic() + 30
    while left := [one.pid for one in psutil.process_iter(["cmdline"]) if "/lighthouse-" in str(one.info["cmdline"])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
