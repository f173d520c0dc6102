"""Widgets in a real browser: there before any script, computed by MicroPython soon after, by keyboard, on a phone, by link."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import fixture
import pytest
from checks import gates

from llminfra.web import widgets

pytestmark = pytest.mark.heavy

PAGES = {name: page for page, held in fixture.WIDGETS.items() for name, _ in held}
HTML = "(root) => root.querySelector('.widget-result').innerHTML"
# What a browser makes of a fragment of HTML, to compare with what it holds.
NORMAL = "(html) => { const made = document.createElement('template'); made.innerHTML = html; return made.innerHTML }"
SUMMARY = ".widget-summary"


@contextmanager
def opened(chromium, address, name, query="", **context):
    """A page with this widget in a fresh context, and all that went wrong on it."""
    with chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **context}) as made:
        page = made.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text[:500]))
        page.on("pageerror", lambda error: page.problems.append(str(error)[:500]))
        page.goto(f"{address}/book/{PAGES[name]}.html{query}")
        yield page
        assert page.problems == []


def ready(page, key):
    """Scroll a widget into view, and return it when its first result is computed."""
    root = page.locator(f"#{key}-widget")
    root.scroll_into_view_if_needed()
    root.and_(page.locator("[data-ready]")).wait_for()
    return root


def axe(page):
    """What axe says of the page as it stands, at its top, where Furo's link back to it is gone."""
    page.add_style_tag(content=gates.STILL)
    page.evaluate("scrollTo(0, 0)")
    page.locator(".back-to-top").wait_for(state="hidden")
    return gates.axe(page)


def test_every_widget_has_a_page():
    assert set(PAGES) == set(widgets.NAMES)


@pytest.mark.parametrize("name", widgets.NAMES)
def test_the_default_result_is_there_without_scripts(chromium, ten_pages, name):
    with opened(chromium, ten_pages, name, java_script_enabled=False) as page:
        root = page.locator(f"#{name}-widget")
        assert len(root.locator(SUMMARY).inner_text()) > 40
        assert root.locator("svg").is_visible() and root.locator("table").is_visible()
        assert "needs JavaScript" in root.inner_text()
        assert root.locator("fieldset:disabled").count() == 1


@pytest.mark.parametrize("name", widgets.NAMES)
def test_the_page_computes_what_cpython_computes(chromium, ten_pages, name):
    options = dict(fixture.WIDGETS[PAGES[name]])[name] if name != "planner" else {}
    with opened(chromium, ten_pages, name) as page:
        root = ready(page, name)
        assert root.evaluate(HTML) == page.evaluate(NORMAL, widgets.result(name, options))
        root.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        values = dict(options)
        for field in widgets.fields(name):
            if field["kind"] == "number":
                values[field["name"]] = str(max(field["min"], int(float(field["value"]) * 0.75)))
                root.locator(f"[name={field['name']}]").fill(values[field["name"]])
        expected = page.evaluate(NORMAL, widgets.result(name, values))
        page.wait_for_function(f"([root, html]) => ({HTML})(root) === html", arg=[root.element_handle(), expected])


def test_what_a_widget_loads_is_small_and_from_here(chromium, ten_pages, covered):
    with opened(chromium, ten_pages, "planner") as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        ready(page, "planner")
        assert all(url.startswith((ten_pages, "data:")) for url in asked)
        requests, size = gates.widgets(page)
        assert 3 <= requests <= gates.MAX_WIDGET_REQUESTS and 100_000 < size <= gates.MAX_WIDGET_BYTES
        assert gates.light(page) == []
    covered("widgets", f"they add {requests} requests and {size / 1000:.0f} KB to a page, compressed")


def test_a_page_without_widgets_loads_nothing_for_them(chromium, ten_pages):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{ten_pages}/book/index.html", wait_until="networkidle")
        assert gates.widgets(page) == (0, 0)


def test_nothing_is_loaded_before_a_widget_is_near(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner", viewport={"width": 1280, "height": 300}) as page:
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(300)
        assert gates.widgets(page)[0] == 1, "its own script alone"


@pytest.mark.parametrize("name", widgets.NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_and_axe_has_nothing_to_say_after_a_change(chromium, ten_pages, hold, name, scheme):
    phone = {"width": 360, "height": 740}
    with opened(chromium, ten_pages, name, viewport=phone, color_scheme=scheme) as page:
        root = ready(page, name)
        before = root.evaluate(HTML)
        field = next(field for field in widgets.fields(name) if field["kind"] == "number" and field["name"] != "prompt")
        root.locator(f"[name={field['name']}]").fill(str(2 * int(float(field["value"]))))
        page.wait_for_function(f"([root, html]) => ({HTML})(root) !== html", arg=[root.element_handle(), before])
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        hold(axe(page))


def test_by_keyboard_alone_a_choice_changes_the_result(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner") as page:
        page.locator("h2").last.evaluate("one => one.scrollIntoView()")
        for _ in range(200):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "planner-gpu":
                break
        assert page.evaluate("document.activeElement.id") == "planner-gpu"
        page.locator("#planner-widget[data-ready]").wait_for()
        before = page.locator("#planner-widget").locator(SUMMARY).inner_text()
        page.keyboard.press("ArrowDown")
        chosen = page.locator("#planner-gpu").input_value()
        assert chosen != "a10g"
        page.wait_for_function(
            "([at, text]) => document.querySelector(at).innerText !== text", arg=[f"#planner-widget {SUMMARY}", before]
        )
        expected = re.search(r">([^<]+)</p>", widgets.result("planner", {"gpu": chosen}))[1]
        assert page.locator("#planner-widget").locator(SUMMARY).inner_text() == expected
        assert page.evaluate("document.activeElement.id") == "planner-gpu"


def test_a_link_gives_back_what_was_chosen_for_each_widget_apart(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner", "?kept=1#links") as page:
        first, second = ready(page, "planner"), ready(page, "planner-2")
        untouched = second.evaluate(HTML)
        first.locator("[name=users]").fill("500")
        first.locator("[name=gpu]").select_option("l4")
        page.wait_for_function("location.search.includes('planner.gpu')")
        link = page.url
        assert "kept=1" in link and link.endswith("#links") and "planner-2" not in link and "model" not in link
        expected = page.evaluate(NORMAL, widgets.result("planner", {"users": "500", "gpu": "l4"}))
        page.goto("about:blank")
        page.goto(link)
        first, second = ready(page, "planner"), ready(page, "planner-2")
        assert first.evaluate(HTML) == expected and second.evaluate(HTML) == untouched
        first.locator("[name=users]").fill("16")
        first.locator("[name=gpu]").select_option("a10g")
        page.wait_for_function("!location.search.includes('planner')")


def test_a_link_that_names_what_is_not_there_gives_the_default(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner", "?planner.gpu=tpu-v9&planner.colour=red") as page:
        root = ready(page, "planner")
        assert root.locator("[name=gpu]").input_value() == "a10g"
        assert root.evaluate(HTML) == page.evaluate(NORMAL, widgets.result("planner", {}))


def test_what_cannot_be_is_said_at_the_form_and_the_last_result_stays(chromium, ten_pages, hold):
    with opened(chromium, ten_pages, "planner") as page:
        root = ready(page, "planner")
        before, alert = root.evaluate(HTML), root.get_by_role("alert")
        assert not alert.is_visible()
        gpu = root.locator("[name=gpu]")
        gpu.select_option("t4")
        alert.wait_for()
        assert alert.inner_text().startswith("the engine refuses: Bfloat16 is only")
        assert root.evaluate(HTML) == before
        assert gpu.get_attribute("aria-invalid") == "true"
        assert gpu.get_attribute("aria-errormessage") == alert.get_attribute("id")
        hold(axe(page))
        root.locator("[name=precision]").select_option("fp16")
        alert.wait_for(state="hidden")
        assert root.locator("[aria-invalid=true]").count() == 0
        expected = widgets.result("planner", {"gpu": "t4", "precision": "fp16"})
        assert root.evaluate(HTML) == page.evaluate(NORMAL, expected)


def test_the_summary_is_told_and_nothing_else(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner") as page:
        root = ready(page, "planner")
        summary = root.locator(SUMMARY).element_handle()
        root.locator("[name=users]").fill("99")
        page.wait_for_function("one => one.isConnected && one.innerText.startsWith('99 users')", arg=summary)
        live = root.locator(".widget-result :is([role=status], [role=alert], [aria-live])")
        assert live.count() == 1 and live.get_attribute("class") == "widget-summary"


def test_what_cannot_load_is_said_and_tried_again(chromium, ten_pages):
    with chromium.new_context() as context:
        page = context.new_page()
        context.route("**/calc.json", lambda route: route.abort())
        page.goto(f"{ten_pages}/book/{PAGES['planner']}.html")
        root = page.locator("#planner-widget")
        root.scroll_into_view_if_needed()
        root.get_by_role("alert").wait_for()
        assert "could not load" in root.get_by_role("alert").inner_text()
        assert root.locator(SUMMARY).is_visible()
        context.unroute("**/calc.json")
        root.locator("[name=users]").fill("99")
        page.wait_for_function("document.querySelector('.widget-summary').innerText.startsWith('99 users')")
        assert not root.get_by_role("alert").is_visible()


def test_a_computation_that_breaks_is_said_and_the_last_result_stays(chromium, ten_pages):
    bundle = json.loads((fixture.built() / "_static" / "calc.json").read_text(encoding="utf-8"))
    source, call = bundle["llminfra/web/widgets.py"], "call = json.loads(asked)\n"
    assert call in source
    bundle["llminfra/web/widgets.py"] = source.replace(call, f"{call}    1 / (call['values']['users'] != '13')\n")
    with chromium.new_context() as context:
        page, broke = context.new_page(), []
        page.on("pageerror", lambda error: broke.append(str(error)))
        context.route("**/calc.json", lambda route: route.fulfill(json=bundle))
        page.goto(f"{ten_pages}/book/{PAGES['planner']}.html")
        root = ready(page, "planner")
        before, alert, users = root.evaluate(HTML), root.get_by_role("alert"), root.locator("[name=users]")
        users.fill("13")
        alert.wait_for()
        assert alert.inner_text().startswith("This widget failed to compute a result for these values: change one")
        assert root.evaluate(HTML) == before and users.get_attribute("aria-invalid") == "true"
        assert len(broke) == 1 and "ZeroDivisionError" in broke[0]
        users.fill("14")
        alert.wait_for(state="hidden")
        assert root.locator(SUMMARY).inner_text().startswith("14 users")


def test_on_paper_a_widget_is_its_values_and_its_result(chromium, ten_pages):
    with opened(chromium, ten_pages, "planner") as page:
        page.emulate_media(media="print")
        root = page.locator("#planner-widget")
        assert root.locator("select").first.is_visible() and root.locator("table").is_visible()
        assert not root.locator("small[id]").first.is_visible()


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("{widget} sundial", r"page\.md:3: .*no widget 'sundial'; nearest: .*planner"),
        ("{widget} planner\n:gpu: tpu-v9", r"page\.md:3: .*widget planner: no gpu 'tpu-v9'"),
        ("{widget} planner\n:step: 3", r"page\.md:3: .*widget planner: no field 'step'"),
        ("{widget} planner\n:colour: red", r"page\.md:\d: .*[Uu]nknown option.*colour"),
    ],
)
def test_a_directive_that_asks_for_nonsense_is_an_error_with_its_place(tmp_path, directive, words):
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(fixture.ROOT / 'book' / '_ext')!r})\nextensions = ['myst_parser', 'widget']\n"
    )
    (tmp_path / "page.md").write_text(f"# Title\n\n```{directive}\n```\n")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "dummy",
        "-D",
        "root_doc=page",
        str(tmp_path),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(words, done.stderr), done.stderr


def test_the_page_holds_its_values_as_data(ten_pages):
    page = (fixture.built() / "book" / f"{PAGES['planner']}.html").read_text(encoding="utf-8")
    assert page.count('id="planner-model"') == page.count('id="planner-2-model"') == 1
    second = re.search(r'<select id="planner-2-model".*?</select>', page, re.S)[0]
    assert re.search(r'value="Llama-3-8B" selected', second)
    bundle = json.loads((fixture.built() / "_static" / "calc.json").read_text(encoding="utf-8"))
    assert "llminfra/web/widgets.py" in bundle
