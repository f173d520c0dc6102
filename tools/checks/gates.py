"""What every page of the built site must pass in a real browser, as its readers meet it.

`inspect` opens a page three times: wide and light, narrow and dark, and without scripts. Each gate is a function that
takes a page which is open and returns what is wrong with it, in words; an empty list is a pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Response, Route

from checks import Problem

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
WIDE, NARROW = 1400, 320
MAX_BYTES, MAX_BYTES_WITH_FIGURES, MAX_REQUESTS = 180_000, 300_000, 15
# What widgets load once they are in sight has a budget of its own, besides the page's.
WIDGETS, MAX_WIDGET_BYTES, MAX_WIDGET_REQUESTS = r"/_static/(widget\.mjs|micropython\.\w+|calc\.json)$", 300_000, 5
MAX_TABS = 3000
HEADER_BYTES = 300  # what a response's headers weigh; browsers tell only the size of its body

# Kept in the page: what moved, and functions that more than one gate calls.
PRELUDE = """
window.gates = {
  moved: [],
  name(element) {
    if (!element?.cloneNode) return "something";
    const tag = element.nodeType === 1 ? element.cloneNode(false).outerHTML.replace(/<\\/[^>]*>$/, "") : "";
    const words = element.textContent.trim().replace(/\\s+/g, " ");
    return (tag.length > 90 ? tag.slice(0, 90) + "…" : tag) + (words.length > 40 ? words.slice(0, 40) + "…" : words);
  },
  at: (rect) => [rect.x, rect.y, rect.width, rect.height].map(Math.round).join(" "),
  shown: (element) => element.checkVisibility({ visibilityProperty: true }),
  frame: () => new Promise(requestAnimationFrame),
};
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    if (!entry.hadRecentInput)
      gates.moved.push([entry.value, entry.sources.map((source) =>
        `${gates.name(source.node)} from ${gates.at(source.previousRect)} to ${gates.at(source.currentRect)}`)]);
}).observe({ type: "layout-shift", buffered: true });
"""

# Scrolls through the page, so that all which is loaded late is there; waits for its images and its widgets.
READ = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    scrollTo({ top: y, behavior: "instant" });
    await gates.frame();
    await gates.frame();
  }
  const late = () => [...document.querySelectorAll("img, .widget:not([data-ready])")].filter((one) => gates.shown(one) && !one.complete);
  for (let frames = 0; late().length && frames < 600; frames++) await gates.frame();
  scrollTo({ top: 0, behavior: "instant" });
  await gates.frame();
  await gates.frame();
}"""

STILL = "*, ::before, ::after { transition: none !important; animation: none !important; scroll-behavior: auto !important; }"


@dataclass
class Visit:
    """A page that is open, with what it said to the console, asked of other hosts, and asked for in vain."""

    page: Page
    said: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@contextmanager
def visit(
    browser: Browser, url: str, *, width: int = WIDE, scheme: Any = "light", scripts: bool = True
) -> Iterator[Visit]:
    """Open a page in a fresh context and read it through; other hosts get an empty answer and are noted."""
    base = re.match(r"https?://[^/]+/", url)[0]  # type: ignore[index]
    with browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
    ) as context:
        page = context.new_page()
        opened = Visit(page)

        def elsewhere(route: Route) -> None:
            opened.foreign.append(route.request.url)
            route.fulfill(status=200, body="", headers={"Access-Control-Allow-Origin": "*"})

        def console(message: ConsoleMessage) -> None:
            if not message.text.startswith("Failed to load resource"):  # told better by its response
                opened.said.append(f"{message.type}: {message.text}")

        def response(answer: Response) -> None:
            if answer.status >= 400:
                opened.failed.append(f"{answer.url.removeprefix(base)} ({answer.status})")

        context.route(lambda asked: not asked.startswith((base, "data:", "blob:")), elsewhere)
        page.on("console", console)
        page.on("pageerror", lambda error: opened.said.append(f"error: {error}"))
        page.on("response", response)
        page.on("websocket", lambda socket: opened.foreign.append(socket.url))  # which no route sees
        if scripts:
            page.add_init_script(PRELUDE)
        page.goto(url, wait_until="networkidle" if scripts else "load")
        if scripts:
            page.evaluate(READ)
        yield opened


def quiet(opened: Visit) -> list[str]:
    """Return what the page says to the console."""
    return [f"the console says {said}" for said in opened.said]


def alone(opened: Visit) -> list[str]:
    """Return what the page asks of other hosts, now or by a hint, and what the site does not have."""
    hints = 'link:is([rel~="preconnect"], [rel~="dns-prefetch"])[href]'
    found = opened.page.eval_on_selector_all(hints, "all => all.map(link => link.href)")
    problems = [f"asks another host for {url}; keep a copy in book/_static" for url in [*opened.foreign, *found]]
    return problems + [f"asks for {path}, which is not there" for path in opened.failed]


def transfer(page: Page) -> tuple[int, int, int]:
    """Return the requests and bytes without figures, and the bytes with them, as they came over the wire; no widgets."""
    kinds = [(kind, size) for kind, size in _transferred(page) if kind != "widget"]
    plain = [size for kind, size in kinds if kind != "figure"]
    return len(plain), sum(plain), sum(size for _, size in kinds)


def widgets(page: Page) -> tuple[int, int]:
    """Return the requests and bytes by which the page's widgets add to `transfer`."""
    sizes = [size for kind, size in _transferred(page) if kind == "widget"]
    return len(sizes), sum(sizes)


def _transferred(page: Page) -> list[tuple[str, int]]:
    sizes = page.evaluate(
        """(widgets) => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
          .map(entry => [new RegExp(widgets).test(entry.name) ? "widget" : entry.initiatorType === "img" ? "figure" : "",
            entry.encodedBodySize])""",
        WIDGETS,
    )
    return [(kind, size + HEADER_BYTES) for kind, size in sizes]


def light(page: Page) -> list[str]:
    """Return how far the page is above its budgets."""
    requests, plain, whole = transfer(page)
    added, size_added = widgets(page)
    problems = []
    if requests > MAX_REQUESTS:
        problems.append(f"takes {requests} requests without its figures, at most {MAX_REQUESTS} are allowed")
    if added > MAX_WIDGET_REQUESTS:
        problems.append(f"takes {added} requests for its widgets, at most {MAX_WIDGET_REQUESTS} are allowed")
    for size, limit, what in (
        (plain, MAX_BYTES, "without its figures"),
        (whole, MAX_BYTES_WITH_FIGURES, "with its figures"),
        (size_added, MAX_WIDGET_BYTES, "in its widgets"),
    ):
        if size > limit:
            problems.append(f"weighs {size / 1000:.0f} KB {what}, at most {limit // 1000} KB are allowed")
    return problems


def still(page: Page) -> list[str]:
    """Return what moved while the page loaded and was read through."""
    moved = page.evaluate("gates.moved")
    what = "at {} px wide, {} moved while the page loaded (a shift of {:.4f}); give what comes late its size beforehand"
    return [what.format(page.viewport_size["width"], ", ".join(names) or "something", by) for by, names in moved]  # type: ignore[index]


def described(page: Page) -> list[str]:
    """Return what search engines and screen readers miss: a title, a description, one h1 that comes first."""
    problems = []
    if len(page.title().strip()) < 3:
        problems.append("has no title")
    found = page.eval_on_selector_all('meta[name="description"]', "all => all.map(meta => meta.content.trim())")
    if len(found) != 1 or len(found[0]) < 40:
        problems.append(f"needs one description of at least 40 letters, `description:` at its top; it has {found}")
    levels = page.eval_on_selector_all(
        ":is(main, [role=main]) :is(h1, h2, h3, h4, h5, h6)", "all => all.filter(gates.shown).map(one => one.tagName)"
    )
    if levels.count("H1") != 1 or levels[0] != "H1":
        problems.append(f"needs one h1, before all other headings; its headings are {', '.join(levels) or 'none'}")
    return problems


IMAGES = """() => [...document.querySelectorAll("img, canvas, video, [role=img], main svg, [role=main] svg")]
  .filter((image) => gates.shown(image) && !image.closest("[aria-hidden=true]") && !image.parentElement.closest("svg, [role=img]"))
  .map((image) => ({
    name: image.getAttribute("src")?.split("/").pop() || gates.name(image),
    decorative: ["presentation", "none"].includes(image.getAttribute("role")),
    text: image.getAttribute("alt") ?? image.ariaLabel ?? image.ariaLabelledByElements?.map((one) => one.textContent).join(" ")
      ?? image.querySelector(":scope > title")?.textContent ?? "",
    broken: image.naturalWidth === 0,
  }))"""


def pictured(page: Page) -> list[str]:
    """Return the images that are not there, or whose alternative text does not say what they show."""
    problems = []
    for image in page.evaluate(IMAGES):
        name, text = image["name"], image["text"].strip()
        if image["broken"]:
            problems.append(f"image {name} does not load")
        if image["decorative"]:
            continue
        if not text:
            problems.append(f"image {name} has no alternative text; say what it shows, or give it role=presentation")
        elif re.fullmatch(r"\S+\.(png|svg|jpe?g|gif|webp|avif)|\S*[/\\]\S*", text, re.I):
            problems.append(f"image {name}: its alternative text is only a file name, “{text}”; say what it shows")
        elif len(text.split()) < 4:
            problems.append(f"image {name}: its alternative text, “{text}”, is too short to say what it shows")
    return problems


AXE_RUN = """async (rules) => (await axe.run(document, {
    resultTypes: ["violations"],
    ...(rules ? { runOnly: rules } : { rules: { "target-size": { enabled: true } } }),
  })).violations.flatMap((rule) => rule.nodes.map((node) => {
    const checks = [...node.any, ...node.all, ...node.none];
    return { rule: rule.id, html: node.html, data: checks[0]?.data, why: checks.map((check) => check.message).join("; ") };
  }))"""


def axe(page: Page, *rules: str) -> list[str]:
    """Return axe's violations, of all rules or of those named."""
    if not page.evaluate("!!window.axe"):
        page.add_script_tag(path=AXE)
    problems = []
    for found in page.evaluate(AXE_RUN, list(rules) or None):
        data, why = found["data"], found["why"]
        if found["rule"] == "color-contrast":
            why = f"has {data['contrastRatio']}:1 ({data['fgColor']} on {data['bgColor']})"
            why += f", needs {data['expectedContrastRatio']}"
        problems.append(f"axe {found['rule']}: `{found['html'][:120]}` {why}")
    return problems


# The page scrolls sideways if its root does, or what is around its content: a block that scrolls by itself may be wider.
WIDER = """() => {
  const root = document.documentElement, around = [root];
  for (let up = document.querySelector("main, [role=main]"); up; up = up.parentElement) around.push(up);
  const width = Math.max(...around.map((one) =>
    one === root || one.scrollWidth > one.clientWidth + 1 ? one.getBoundingClientRect().left + one.scrollWidth : 0));
  if (width <= innerWidth) return null;
  const clipped = (element) => {
    for (let up = element.parentElement; up && !around.includes(up); up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
  };
  const wide = [...document.body.querySelectorAll("*")].filter((element) =>
    element.getBoundingClientRect().right > innerWidth + 0.5 && gates.shown(element) && !clipped(element));
  return [width, wide.filter((one) => !wide.some((other) => other !== one && one.contains(other))).map(gates.name)];
}"""


def narrow(page: Page) -> list[str]:
    """Return what makes a phone scroll sideways."""
    found = page.evaluate(WIDER)
    if not found:
        return []
    return [f"is {found[0]:.0f} px wide on a phone of {NARROW} px, because of {', '.join(found[1][:3]) or 'a margin'}"]


TABS = """() => {
  const look = (element) => [element, ...(element.labels ?? [])].map((one) => {
    const style = getComputedStyle(one);
    const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) && !/, 0\\)$/.test(style.outlineColor);
    return [outline ? style.outline : "", style.boxShadow, style.border, style.backgroundColor, style.color, style.opacity,
      style.textDecoration, style.transform, style.filter].join();
  }).join();
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, iframe, [tabindex]")];
  const wanted = new Map(all.filter((one) => one.tabIndex >= 0 && !one.disabled && one.type !== "radio" && gates.shown(one))
    .map((one) => [one, look(one)]));
  const main = document.querySelector("main, [role=main]"), reached = new Set();
  let last;
  const seen = (element) => {
    const boxes = [...element.getClientRects()].map((box) => ({ left: Math.max(box.left, 0), top: Math.max(box.top, 0),
      right: Math.min(box.right, innerWidth), bottom: Math.min(box.bottom, innerHeight) }));
    return boxes.some(({ left, top, right, bottom }) => right - left > 1 && bottom - top > 1 &&
      [[0.5, 0.5], [0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]].some(([x, y]) => {
        const hit = document.elementFromPoint(left + x * (right - left), top + y * (bottom - top));
        return hit && (element.contains(hit) || hit.contains(element) || [...(element.labels ?? [])].some((label) => label.contains(hit)));
      }));
  };
  gates.step = async () => {
    const now = document.activeElement, wrong = [];
    if (now === document.body || now === document.documentElement || reached.has(now)) return null;
    const box = now.getBoundingClientRect(), place = { top: box.top + scrollY, bottom: box.bottom + scrollY };
    if (!last) {
      const target = document.getElementById(now.getAttribute("href")?.replace(/^#/, ""));
      if (!target || !main || !(main.contains(target) || target.contains(main)))
        wrong.push(`the first Tab goes to ${gates.name(now)}; it must go to a link that skips to the content`);
    } else {
      if (!(last.element.compareDocumentPosition(now) & Node.DOCUMENT_POSITION_FOLLOWING))
        wrong.push(`Tab goes back from ${gates.name(last.element)} to ${gates.name(now)}`);
      else if (main?.contains(now) && main.contains(last.element) && place.bottom < last.top)
        wrong.push(`Tab goes up from ${gates.name(last.element)} to ${gates.name(now)}`);
    }
    // What a page scrolls while the focus moves is put right in the next frame, before anybody sees it.
    if (!seen(now)) await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    if (!seen(now)) wrong.push(`Tab goes to ${gates.name(now)}, which is hidden or covered`);
    else if (look(now) === wanted.get(now)) wrong.push(`nothing shows that ${gates.name(now)} has the focus`);
    reached.add(now);
    last = { element: now, ...place };
    return wrong;
  };
  gates.unreached = () => [...wanted.keys()].filter((one) => !reached.has(one)).map(gates.name);
  scrollTo(0, 0);
}"""


def tabbed(page: Page) -> list[str]:
    """Press Tab through the whole page; return where the focus cannot be seen, is out of order, or does not come."""
    page.evaluate(TABS)
    problems: list[str] = []
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        wrong = page.evaluate("gates.step()")
        if wrong is None:
            break
        problems += wrong
    return problems + [f"Tab never comes to {name}" for name in page.evaluate("gates.unreached()")]


BLOCKS = """(scripts) => [...document.querySelectorAll(":is(main, [role=main]) :is(h1, h2, h3, h4, p, li, td, th, dt, dd, pre, summary, figcaption)")]
  .filter((block) => block.checkVisibility({ visibilityProperty: true }))
  .map((block) => block.textContent.trim().replace(/\\s+/g, " "))"""
LINKS = "all => all.filter(one => one.checkVisibility()).map(one => one.getAttribute('href'))"
NAVIGATION = ":is(nav, aside, [role=navigation]) a[href]"
ON_SCREEN = (
    "one => { const b = one.getBoundingClientRect(); return b.width > 0 && b.left >= 0 && b.right <= innerWidth }"
)


def scriptless(page: Page, blocks: list[str], links: list[str]) -> list[str]:
    """Return what a reader without scripts, on a phone, misses of the text and links that scripts show."""
    here = set(page.evaluate(BLOCKS))
    problems = [f"without scripts, “{block[:80]}” is missing" for block in dict.fromkeys(blocks) if block not in here]
    menu = page.locator(NAVIGATION)
    there = set(menu.evaluate_all("all => all.map(one => one.getAttribute('href'))"))
    problems += [
        f"without scripts, the link to {link} is missing" for link in dict.fromkeys(links) if link not in there
    ]
    if not problems and links:
        first = menu.first
        for opener in page.locator("header :is(label[for], summary):visible").all():
            if first.evaluate(ON_SCREEN):
                break
            opener.click()
            page.wait_for_timeout(400)
        if not first.evaluate(ON_SCREEN):
            problems.append("without scripts, no label or summary in the header opens the menu on a phone")
    return problems


def inspect(browser: Browser, base: str, name: str) -> list[Problem]:
    """Return all that is wrong with the page `name` (without .html) of the site served at `base`."""
    url = f"{base}/{name}.html"
    with visit(browser, url) as wide:
        page = wide.page
        found = [*light(page), *still(page), *described(page), *pictured(page)]
        page.add_style_tag(content=STILL)
        found += axe(page)
        page.emulate_media(color_scheme="dark")
        found += [f"{problem}, in dark" for problem in axe(page, "color-contrast")]
        page.emulate_media(color_scheme="light")
        blocks, links = page.evaluate(BLOCKS), page.eval_on_selector_all(NAVIGATION, LINKS)
        found += tabbed(page)
        found += [*alone(wide), *quiet(wide)]
    with visit(browser, url, width=NARROW, scheme="dark") as phone:
        found += [*still(phone.page), *narrow(phone.page), *alone(phone), *quiet(phone)]
        phone.page.add_style_tag(content=STILL)
        found += [f"{problem}, in dark on a phone" for problem in axe(phone.page) if problem not in found]
    with visit(browser, url, width=NARROW, scripts=False) as bare:
        found += [*scriptless(bare.page, blocks, links), *alone(bare), *quiet(bare)]
    return [Problem(name, 0, reason) for reason in dict.fromkeys(found)]
