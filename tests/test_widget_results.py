"""What widgets answer, in CPython: good values, bad values, and the shape of the HTML."""

import json
import re
from html.parser import HTMLParser

import pytest

from llminfra.calc import memory
from llminfra.web import form, markup, svg, widget_kvblocks, widgets

CHOICES = [
    (name, field["name"], choice)
    for name in widgets.NAMES
    for field in widgets.fields(name)
    for choice in (
        [value for value, _ in field["options"]]
        if field["kind"] == "select"
        else [str(field["min"]), str(field["max"]), field["value"], str(2 * int(float(field["value"])))]
    )
]
# Why the arithmetic refuses a choice beside the defaults; nothing else may be the reason.
REASONS = {
    "planner": r"the engine refuses|multiplies no|heads: not divisible|output_tokens must be less than|not modelled",
    "simulator": "and its longest request do not fit on one",
    "kvblocks": "does not fit into",
    "roofline": "multiplies no",
    "cost": r"the engine refuses|multiplies no|does not fit on one|no price is known",
}


class Elements(HTMLParser):
    """The elements of a fragment as (name, attributes), and whether each that was opened was closed."""

    VOID = ("br", "input")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.mark.parametrize("name", widgets.NAMES)
def test_the_default_result_begins_with_one_sentence_and_every_part_is_labelled(name):
    html = widgets.result(name, {})
    elements = Elements(html)
    assert elements.found[0] == ("p", {"class": "widget-summary", "role": "status"})
    assert re.match(r"<p [^>]*>[^<]{40,300}\.</p>", html)
    assert len(elements.of("svg")) == len(elements.of("desc")) == html.count('role="img"') == 1
    assert len(re.search(r"<desc>(.*?)</desc>", html)[1]) > 40 and re.search(r"<desc>.*?\d.*?</desc>", html)
    assert len(elements.of("table")) == len(elements.of("caption")) == 1
    assert {head["scope"] for head in elements.of("th")} == {"col", "row"}
    assert all("id" not in attributes for _, attributes in elements.found), "a page may hold it twice"


@pytest.mark.parametrize("name", widgets.NAMES)
def test_fields_have_names_labels_and_defaults_that_they_accept(name):
    fields = widgets.fields(name)
    assert len({field["name"] for field in fields}) == len(fields)
    assert all(field["label"] and re.fullmatch(r"[a-z_]+", field["name"]) for field in fields)
    assert form.read(fields, {}) == form.read(fields, {field["name"]: field["value"] for field in fields})


def told(name, values):
    """The result, or the reason against it, which must be one of REASONS."""
    try:
        return widgets.result(name, values)
    except ValueError as refused:
        assert re.search(REASONS[name], str(refused)) and "\n" not in str(refused)
        return ""


@pytest.mark.parametrize(("name", "field", "choice"), CHOICES)
def test_every_choice_gives_a_result_or_a_reason(name, field, choice):
    assert not re.search(r"\b(nan|inf|None)\b", told(name, {field: choice}))


@pytest.mark.parametrize(("name", "field"), sorted({(name, field) for name, field, _ in CHOICES}))
def test_every_field_changes_the_result(name, field):
    choices = [choice for widget, own, choice in CHOICES if (widget, own) == (name, field)]
    results = {told(name, {field: choice}) for choice in choices} - {""}
    assert len(results) > 1 or len(choices) == 1


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("sundial", {}, "no widget 'sundial'; nearest: .*known: planner, simulator"),
        ("planner", {"gpus": "t4"}, "no field 'gpus'; nearest: gpu"),
        ("planner", {"gpu": "gb300"}, "no gpu 'gb300'; nearest: .*h200"),
        ("planner", {"users": "0"}, "Users at once: give a whole number from 1 to 100,000, not 0"),
        ("planner", {"users": ""}, "Users at once: give a whole number from 1 to 100,000, not nothing"),
        ("planner", {"users": "many"}, "a whole number .* not many"),
        ("planner", {"users": "1.5"}, "a whole number .* not 1.5"),
        ("planner", {"users": "1" * 40}, "a whole number .* not 1111"),
        ("simulator", {"rate": "1e3"}, "Arrivals per second: give a number from 0.1 to 100.0, not 1e3"),
        ("simulator", {"rate": "1.2.3"}, "not 1.2.3"),
        ("simulator", {"rate": "-1"}, "not -1"),
        ("simulator", {"rate": "nan"}, "not nan"),
    ],
)
def test_bad_values_are_refused_in_one_line_that_names_the_field(name, values, words):
    with pytest.raises(ValueError, match=words) as refused:
        widgets.result(name, values)
    assert "\n" not in str(refused.value)


def test_what_a_reader_types_is_escaped():
    told = json.loads(widgets.answer(json.dumps({"name": "planner", "values": {"users": "<b>"}})))
    assert told == {"error": "Users at once: give a whole number from 1 to 100,000, not <b>"}
    assert markup.table('<"a">', ["<b>"], [["<c>", "<d>"]]).count("&lt;") == 5
    assert "<e" not in svg.words(1, 1, "<e>") and "<f" not in markup.summary("<f>") and "<g" not in markup.note("<g>")
    assert "<h" not in markup.definitions([("<h>", "<h>", "<h>")]) and "<i>" not in markup.legend([("", "<i>")])


def test_an_answer_is_the_result_or_the_error_of_a_call():
    good = json.loads(widgets.answer(json.dumps({"name": "roofline", "values": {"batch": "9"}})))
    assert good == {"html": widgets.result("roofline", {"batch": "9"})}
    bad = json.loads(widgets.answer(json.dumps({"name": "roofline", "values": {"gpu": "t4"}})))
    assert list(bad) == ["error"] and bad["error"].startswith("t4 multiplies no bf16; it has ")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (markup.fixed(1234567.125, 2), "1,234,567.13"),
        (markup.fixed(0.125, 2), "0.13"),
        (markup.fixed(-0.4), "0"),
        (markup.fixed(-1234.5), "-1,235"),
        (markup.fixed(1 << 60), "1,152,921,504,606,846,976"),
        (markup.figure(0.01234), "0.0123"),
        (markup.figure(99.96), "100"),
        (markup.figure(1234.5), "1,235"),
        (markup.figure(0.0), "0"),
        (markup.seconds(0.0337), "33.7 ms"),
        (markup.seconds(1.25), "1.25 s"),
        (markup.size(57344), "57.3 kB"),
        (markup.size(999), "999 bytes"),
        (markup.count(1_500_000), "1.5M"),
        (markup.count(20), "20"),
        (markup.usd(0.0421), "$0.042"),
        (markup.usd(1234.5), "$1,235"),
    ],
)
def test_figures_read_well(made, told):
    assert made == told


def test_scales_and_ticks():
    assert svg.steps(7.3) == [0, 2, 4, 6, 8] and svg.steps(100) == [0, 20, 40, 60, 80, 100]
    assert svg.decades(0.3, 250) == [0.1, 1, 10, 100, 1000] and svg.decades(1, 100) == [1, 10, 100]
    assert svg.linear(0, 10, 0, 100)(5) == 50 and svg.logarithmic(1, 100, 0, 100)(10) == pytest.approx(50)
    assert [svg.at(value) for value in (3.25, -3.25, -0.04, 12)] == ["3.3", "-3.2", "0", "12"]


@pytest.mark.parametrize("step", range(0, 241, 16))
def test_blocks_and_tokens_of_the_pool_add_up_at_every_step(step):
    values = form.read(widgets.fields("kvblocks"), {"step": str(step)})
    for reserve in (0, 200):
        state = widget_kvblocks._replay(values, 16, reserve)
        pool, stored = state["pool"], state["stored"]
        held = [block for blocks in pool.tables.values() for block in blocks]
        assert len(held) == len(set(held)) == pool.used <= 48
        for name, blocks in pool.tables.items():
            assert len(blocks) == memory.kv_blocks(reserve or stored[name], 16)
        arrived = min(len(widget_kvblocks.LETTERS), 1 + step // 5)
        assert len(stored) + state["waiting"] + state["finished"] == arrived
