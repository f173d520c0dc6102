"""Search in a real browser: what each query must find first, by keyboard alone, and nothing fetched before it is used."""

from contextlib import contextmanager
from pathlib import Path

import fixture
import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
FIELD, COUNT, OPTION = "#search-field", "#search-count", "#search-results [role=option]"

# On the fixture site, the section that must come first.
TEN_PAGES = {
    "key-value cache": "01-key-value-cache#the-key-value-cache",
    "block table": "01-key-value-cache#blocks-instead-of-one-piece",
    "preempt": "01-key-value-cache#when-the-pool-is-empty",  # a stem of preemption
    "continuous batching": "02-continuous-batching#continuous-batching",
    "max_num_seqs": "02-continuous-batching#how-many-at-once",  # an identifier in prose
    "--max-num-seqs": "02-continuous-batching#fairness-and-priorities",  # an option in a code block
    "starvation": "02-continuous-batching#fairness-and-priorities",
    "Prefix Caching": "03-prefix-caching#prefix-caching",
    "evictions": "03-prefix-caching#eviction",  # a plural of a word that stands there in the singular
    "draft models": "04-speculative-decoding#guess-then-verify",
    "quantiz": "05-quantization#quantization",  # a word not typed to its end
    "GPTQ": "05-quantization#calibration",
    "calibrate": "05-quantization#calibration",  # another form of the word
    "tensor_parallel_size": "06-tensor-parallelism#choosing-a-layout",
    "all-reduce": "06-tensor-parallelism#one-layer-several-devices",
    "percentiles": "07-observability#four-numbers",
    "/metrics": "07-observability#four-numbers",
    "histogram_quantile": "07-observability#traces-and-logs",
    "readiness probe": "08-kubernetes-autoscaling#a-pod-that-loads-for-minutes",
    "autoscal": "08-kubernetes-autoscaling#autoscaling-on-kubernetes",
    "LoRA": "09-lora-adapters#lora-adapters",
    "customer adapter": "09-lora-adapters",
    "zyzzyva": None,
}

# On the course, the page, or the section of it, that must come first. A chapter joins with a few lines of its own.
COURSE = {
    "the course that runs": "index",
    "how to read a page": "index#how-to-read-a-page",
    "prerequisites": "prerequisites",
    "course map": "course-map",
    "objectives": "course-map#objectives",
    "goodput": "glossary#term-Goodput",  # its definition; the section of that name comes second
    "PagedAttention": "glossary#term-PagedAttention",  # a term of the glossary: its definition, then the chapter
    "roofline": "glossary#term-Roofline",
    "kv cache": "glossary#term-KV-cache",
    "arithmetic intensity": "glossary#term-Arithmetic-intensity",
    "build or buy": "01-introduction-llm-infrastructure#build-or-buy",
    "deployment patterns": "01-introduction-llm-infrastructure#deployment-patterns",
    "SGLang": "01-introduction-llm-infrastructure#frameworks-and-providers",
    "knee": "01-introduction-llm-infrastructure#the-knee-on-this-machine",
    "which card": "01-introduction-llm-infrastructure#which-model-fits-which-card",
    "case study completing code": "01-introduction-llm-infrastructure#case-study-completing-code-while-you-type",
    "prefix caching": "02-vllm-deployment#prefix-caching",
    "reranking": "03-rag-systems#reranking",
    "instructions in documents": "03-rag-systems#instructions-in-documents",
    "knowing when not to answer": "03-rag-systems#knowing-when-not-to-answer",
    "HyDE": "glossary#term-HyDE",
    "free tier quota": "setup",
    "GuideLLM": "resources#tools",
    "roadmap": "roadmap",
    "troubleshooting index": "troubleshooting",
    "HNSW": "glossary#term-HNSW",
    "payload index": "04-vector-databases#filters-and-what-they-do-to-a-graph",
    "pgvector": "04-vector-databases#postgresql-with-pgvector",
    "Weaviate": "04-vector-databases#weaviate",
    "embedding model migration": "04-vector-databases#changing-the-embedding-model",
    "SIGKILL": "04-vector-databases#killed-in-the-middle",
    "structured output": "02-vllm-deployment#structured-output",
    "tool calls": "02-vllm-deployment#tool-calls",
    "graceful shutdown": "02-vllm-deployment",
    "SIGTERM": "02-vllm-deployment#stopping-without-dropping-anybody",
    "out of memory": "02-vllm-deployment#out-of-memory-provoked-and-read",
    "max_num_batched_tokens": "02-vllm-deployment#the-arguments-that-matter",
    "vllm:num_requests_waiting": "02-vllm-deployment#reading-metrics",
    "million tokens": "02-vllm-deployment#what-a-million-tokens-cost",
    "what a million tokens cost": "02-vllm-deployment#what-a-million-tokens-cost",
    "Azure traces": "01-introduction-llm-infrastructure#what-is-new-if-you-have-served-models-before",
    "zyzzyva": None,
}


@contextmanager
def opened(chromium, url, **options):
    """A page in a fresh context, once its search buttons work, with all that it asked for from then on."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(url, wait_until="networkidle")
    page.locator(".search-open[data-ready]").first.wait_for(state="attached")
    yield page
    context.close()


def ask(page, words):
    """Put a query into the open dialog, wait until it is answered, and return where the results lead."""
    page.fill(FIELD, "")
    page.wait_for_function("!document.querySelector('#search-count').textContent")
    page.fill(FIELD, words)
    page.wait_for_function("document.querySelector('#search-count').textContent")
    return page.eval_on_selector_all(OPTION, "all => all.map(link => link.href)")


def wrong(page, queries):
    """Return a line for each query whose first result is another page or section."""
    lines = []
    for words, wanted in queries.items():
        found = [url.rpartition("/")[2].replace(".html", "") for url in ask(page, words)]
        first = found[0] if found else None
        if wanted and "#" not in wanted:
            first = first and first.partition("#")[0]
        if first != wanted:
            lines.append(f"search for “{words}”: {wanted or 'nothing'} must come first, but these came: {found[:4]}")
    return lines


@pytest.mark.parametrize("kind", ["ten pages", "course"])
def test_each_query_finds_its_page_first(chromium, ten_pages, site, hold, covered, kind):
    address, queries = (ten_pages, TEN_PAGES) if kind == "ten pages" else (site, COURSE)
    with opened(chromium, f"{address}/book/index.html") as page:
        page.keyboard.press("/")
        hold(wrong(page, queries))
        hold([f"while searching, the console said: {said}" for said in page.said])
    covered(f"search, {kind}", f"{len(queries)} queries, each with what must come first")


def test_every_written_chapter_has_queries(hold):
    chapters = {path.stem for path in (ROOT / "book").glob("[0-9][0-9]-*.md")}
    asked = {wanted.partition("#")[0] for wanted in COURSE.values() if wanted}
    hold([f"{name}: no query finds it; add some to COURSE in tests/site/test_search.py" for name in chapters - asked])


def test_the_keyboard_alone_reaches_a_section(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/index.html") as page:
        page.keyboard.press("/")
        page.locator(FIELD).wait_for()
        page.keyboard.type("paged attention blocks")
        page.wait_for_function("document.querySelector('#search-count').textContent.includes('result')")
        assert page.inner_text(COUNT).split()[0] == str(page.locator(OPTION).count())
        assert page.locator(FIELD).get_attribute("aria-activedescendant") is None
        chosen = []
        for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown"):
            page.keyboard.press(key)
            chosen.append(page.locator(FIELD).get_attribute("aria-activedescendant"))
        last = f"search-result-{page.locator(OPTION).count() - 1}"
        first, second = "search-result-0", "search-result-1"
        assert chosen == [first, second, first, None, last, None, first]
        there = page.locator(f"{OPTION}[aria-selected=true]").get_attribute("href")
        assert "#" in there
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{there}")
        page.wait_for_function("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight")


def test_enter_goes_to_the_first_result_also_on_the_same_page(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/05-quantization.html") as page:
        page.keyboard.press("Control+k")
        page.locator(FIELD).wait_for()
        page.keyboard.type("GPTQ")
        page.keyboard.press("Enter")
        page.wait_for_url("**/05-quantization.html#calibration")
        assert not page.locator("dialog.search").is_visible()
        page.wait_for_function("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight / 2")


@pytest.mark.parametrize("width", [1280, 360])
def test_escape_gives_the_focus_back_to_the_button(chromium, ten_pages, width):
    with opened(chromium, f"{ten_pages}/book/index.html") as page:
        page.set_viewport_size({"width": width, "height": 800})
        button = page.locator(".search-open-wide" if width > 1000 else ".search-open-narrow")
        button.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "search-field"
        page.keyboard.press("Escape")
        page.locator("dialog.search").wait_for(state="hidden")
        assert page.evaluate("document.activeElement.className.includes('search-open')")


def test_a_slash_typed_into_a_field_stays_there(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/index.html") as page:
        page.evaluate("document.querySelector('article').innerHTML = '<input id=own>'")
        page.focus("#own")
        page.keyboard.type("a/b")
        assert page.input_value("#own") == "a/b"
        page.keyboard.press("/")
        assert page.locator("dialog.search").count() == 0


def test_nothing_of_it_is_fetched_before_it_opens_and_nothing_from_elsewhere(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/index.html") as page:
        assert [url for url in page.asked if "pagefind" in url] == []
        page.keyboard.press("/")
        ask(page, "quantization")
        assert [url for url in page.asked if "/pagefind/" in url]
        assert [url for url in page.asked if not url.startswith(ten_pages)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("words", ["cache", "zyzzyva"])
def test_the_dialog_is_accessible(chromium, ten_pages, hold, scheme, words):
    with opened(chromium, f"{ten_pages}/book/index.html", color_scheme=scheme) as page:
        page.keyboard.press("/")
        ask(page, words)
        page.keyboard.press("ArrowDown")
        page.add_script_tag(path=ROOT / "node_modules" / "axe-core" / "axe.min.js")
        found = page.evaluate("axe.run('dialog.search')")["violations"]
        nodes = [(fault["id"], fault["help"], node["html"]) for fault in found for node in fault["nodes"]]
        hold([f"search dialog, {scheme}: axe {name}: {help_}: {html[:120]}" for name, help_, html in nodes])


def test_a_narrow_phone_needs_no_sideways_scrolling(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/02-continuous-batching.html") as page:
        page.set_viewport_size({"width": 320, "height": 640})
        page.click(".search-open:visible")
        assert ask(page, "max_num_batched_tokens")
        for part in ("html", "dialog.search", "#search-results"):
            wide, room = page.eval_on_selector(part, "part => [part.scrollWidth, part.clientWidth]")
            assert wide <= room <= 320, f"{part} is {wide} px wide in {room} px"
        box = page.locator("dialog.search").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 320 and box["y"] + box["height"] <= 640


def test_without_scripts_there_is_no_button(chromium, ten_pages):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{ten_pages}/book/index.html")
    assert page.locator(".search-open").count() == 2
    assert page.locator(".search-open:visible").count() == 0
    context.close()


def test_a_search_that_cannot_load_says_why(chromium, ten_pages):
    with opened(chromium, f"{ten_pages}/book/index.html") as page:
        page.route("**/pagefind.js", lambda route: route.abort())
        page.locator(".search-open:visible").first.click()
        page.wait_for_function("document.querySelector('#search-count').textContent.includes('could not load')")


def test_the_index_is_the_same_bytes_each_time_and_holds_only_what_is_used(tmp_path):
    first, second = fixture.built() / "pagefind", fixture.build(tmp_path / "again") / "pagefind"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [file for file in files if (first / file).read_bytes() != (second / file).read_bytes()] == []
    assert [file.name for file in files if file.suffix in (".js", ".css")] == ["pagefind.js"]
    assert (fixture.built() / "_static" / "search.mjs").stat().st_size < 6 * 1024
