"""Figures from elsewhere have a source in reach; the check refuses what has none, by file, line and reason."""

import re
import warnings
from datetime import date, timedelta

import pytest
from checks import figures, quantities

from llminfra.calc import tables


def test_every_figure_of_the_course_has_a_source(hold, covered):
    found, table = figures.of_course()
    hold(found)
    for line in figures.rows(table):
        covered("figures", line)


def test_old_data_warns(covered):
    old = figures.stale(date.today())
    for line in old:
        warnings.warn(line, stacklevel=1)
    covered("figures", f"sources of the data files read more than {figures.STALE_DAYS} days ago: {len(old)}")
    read = date.fromisoformat(tables.price("t4", "aws")["read"])
    assert not any("prices.json: aws" in line for line in figures.stale(read + timedelta(days=180)))
    assert any("prices.json: aws was read 181 days ago" in line for line in figures.stale(read + timedelta(days=181)))


CELL = "```{code-cell} ipython3\n"
BIBLIOGRAPHY = "@misc{known, title={Known}, url={https://example.org/}}\n"


@pytest.fixture
def judge(page, tmp_path):
    """Judge a page below a title on its first line, in a folder with a bibliography of one entry, `known`."""

    def judge(text, bibliography=BIBLIOGRAPHY):
        written = page(f"# Title\n\n{text}\n")
        (tmp_path / "book" / "references.bib").write_text(bibliography, encoding="utf-8")
        found, table = figures.problems([written], tmp_path)
        return found, {kind: count for (_, kind), count in table.items()}

    return judge


UNSOURCED = {
    "a factor": "It reached 8 times the throughput of the old one.",
    "a factor in words": "Traffic grew to five times the earlier one.",
    "a factor by a letter": "It is 23x faster.",
    "a factor as such": "A factor of 30 was seen.",
    "a fold": "A 12-fold gain.",
    "half of something": "It ran on half the GPUs.",
    "a share in words": "Most services are busy less than a third of the day.",
    "a verb": "Caching doubles throughput.",
    "a share": "The systems used 20.4 % of their memory.",
    "a rate": "The arena served 30,000 requests a day.",
    "a rate by a slash": "It makes 2,400 tokens/s.",
    "a count": "The median prompt has 1,020 tokens.",
    "a count of millions": "It had 3 million users.",
    "a score": "Recall falls from 0.98 to 0.91.",
    "a size": "A container gets 64 MiB by default.",
    "a time": "It prints every ten seconds.",
    "a time in units": "The median is 200 ms.",
    "money": "They saved \\$2 million by it.",
    "a caption": "```{figure} a.svg\n:alt: a\n\nServing 900 users at once.\n```",
    "an admonition": ":::{note}\nIt needs 900 nodes.\n:::",
    "a heading": "## 8 times faster",
}


@pytest.mark.parametrize("name", UNSOURCED)
def test_a_figure_without_a_source_is_refused(judge, name):
    found, _ = judge(UNSOURCED[name])
    assert len(found) == 1 and "has no source in reach" in found[0].reason, found
    assert found[0].path == "book/bad.md" and found[0].line >= 3


def test_the_line_is_the_figures_own(judge):
    found, _ = judge(
        "One line of prose,\nanother, and\nthen 900 users.\n\n- one\n- 30 times the rate\n\n| a |\n|---|\n| 9 % |"
    )
    assert [problem.line for problem in found] == [5, 8, 12]


SOURCED = {
    "cited": "It reached 8 times the throughput {cite}`known`.",
    "cited in the next line": "It reached 8 times the throughput,\nas {cite:t}`known` says.",
    "linked": "It reached 8 times the [throughput](https://example.org/post).",
    "a bare address": "It reached 8 times the throughput: <https://example.org/post>",
    "the section that measured it": "It reached 8 times the throughput ({ref}`the sweep <sweep>`).",
    "a place of another page": "It reached 8 times the throughput ([the sweep](02-other.md#sweep)).",
    "the paragraph that leads in": "They measured {cite}`known`:\n\n- 8 times the throughput\n- 900 users",
    "a row's own": "Rows:\n\n| what | how much |\n|---|---|\n| gain | 8 times the old {cite}`known` |",
    "a table's header": "| what | how much {cite}`known` |\n|---|---|\n| gain | 8 times the old |\n| users | 900 users |",
    "said again": "It was 8 times the rate {cite}`known`.\n\nThe factor of 8 is a micro-benchmark's.",
    "a model in the data file": "A model of 135 million parameters.",
}


@pytest.mark.parametrize("name", SOURCED)
def test_a_figure_with_a_source_in_reach_passes(judge, hold, name):
    found, table = judge(SOURCED[name])
    hold(found)
    assert set(table) == {"sourced"}


def test_a_file_or_target_named_in_code_is_a_source_if_it_is_there(judge, tmp_path):
    (tmp_path / "Makefile").write_text("all:\nbench: ## it\n", encoding="utf-8")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "vllm.yaml").touch()
    assert not judge("They agree within 10 % (`make bench`), and use 64 MiB (`deploy/vllm.yaml`).")[0]
    assert len(judge("They agree within 10 % (`make benches`).")[0]) == 1
    assert len(judge("They agree within 10 % (`deploy/none.yaml`).")[0]) == 1


FAR = {
    "another paragraph": "Throughput matters {cite}`known`.\n\nIt rose 8 times over the old one.",
    "another item": "List.\n\n- one {cite}`known`\n- 8 times the throughput",
    "another row": "| a | b |\n|---|---|\n| x {cite}`known` | 8 % |\n| y | 9 % |",
    "said again elsewhere": "It was 8 times the rate {cite}`known`.\n\n## Other\n\nThe factor of 8 is all.",
    "a key that is not there": "It reached 8 times the throughput {cite}`unknown`.",
    "a page, not a place": "It reached 8 times the throughput ([there](other.md)).",
    "in code": "It reached 8 times the throughput (`https://example.org`).",
}


@pytest.mark.parametrize("name", FAR)
def test_a_source_out_of_reach_is_none(judge, name):
    found, _ = judge(FAR[name])
    assert any("has no source in reach" in problem.reason for problem in found)


OF_THE_DATA = {
    "bandwidth": ("The T4 has 320 GB/s of bandwidth.", "320 GB/s.*gpus.json"),
    "bandwidth, of a card not named": ("A fast card moves 2 TB/s.", "2 TB/s.*gpus.json"),
    "speed": ("An H100 computes 989 TFLOPS.", "989 TFLOPS.*gpus.json"),
    "power": ("The L4 draws 72 W.", "72 W.*gpus.json"),
    "memory as sold": ("With 24 GB, the A10G holds it.", "24 GB.*gpus.json"),
    "memory as seen": ("Of a T4, 14.7 GiB are usable.", "14.7 GiB.*gpus.json"),
    "memory before the name": ("Cheap 16 GB T4s hold it.", "16 GB.*gpus.json"),
    "memory of a card that no file has": ("A B200 has 192 GB.", "192 GB.*gpus.json"),
    "a price": ("An A10G costs \\$1.006 an hour.", "1.006.*prices.json"),
    "a price without an hour": ("An A10G is \\$1.006.", "1.006.*prices.json"),
    "a price in words": ("You pay two dollars per hour.", "two dollars.*prices.json"),
    "a price of tokens": ("They ask €3 per million tokens.", "3.*prices.json"),
}


@pytest.mark.parametrize("name", OF_THE_DATA)
def test_prices_and_specifications_in_prose_are_refused_even_with_a_link(judge, name):
    text, words = OF_THE_DATA[name]
    found, _ = judge(f"{text} See [the sheet](https://example.org/).")
    assert len(found) == 1 and re.search(words, found[0].reason), found


def test_prices_and_specifications_in_a_written_table_are_refused(judge):
    table = "| GPU | memory (GB) | GB/s | $/h | TFLOPS |\n|---|---|---|---|---|\n| T4 | 16 | 320 | 0.526 | 65 |"
    found, _ = judge(f"From [the sheet](https://example.org/):\n\n{table}")
    assert sorted(problem.reason.split("”")[0] for problem in found) == ["“$0.526", "“16 GB", "“320 GB/s", "“65 TFLOPS"]
    assert {problem.line for problem in found} == {7}


def test_what_is_no_outside_figure_passes(judge, hold):
    text = """Sixteen requests and eight examples, on Python 3.11 with vLLM 0.32.0 at port 8000, as chapter 2 of 2023 says.
It answers 503 or 400, in 16 bits, on an A100 40 GB, after step 3; a GPU reads 100 %; dollars per million tokens; 7B.
Where `max_num_seqs=900 users` and $x = 900$ stand, three times 128 is 384. Ask it three times. See which half of it grew.
It answers 429 when a tenant asks more.

An objective is a number, such as "95 % of first tokens". The labs take 90 minutes and 16 GB of memory.
"""
    found, _ = judge(text)
    hold(found)


def test_the_pages_own_settings_are_those_of_the_code_under_the_same_heading(judge):
    cell = CELL + "budget, space, wait_s = 301, 2**30, 30  # 77 users\nlimit = 8192\n```\n"
    said = "With 1 GiB, 301 tokens and thirty seconds; nobody sends 8,000 tokens.\n\n"
    assert judge(said + cell) == ([], {"own": 4})
    assert len(judge(said + "## Other\n\n" + cell)[0]) == 4
    assert len(judge("It has 77 users.\n\n" + cell)[0]) == 1, "a comment is prose, too"
    assert len(judge("It has 8,100 tokens.\n\n" + cell)[0]) == 1, "8,192 is not rounded so"


def test_a_ratio_or_share_is_the_pages_own_if_a_check_holds_it(judge):
    said = "It is 3 times the rate at twice the load, and idle 70 % of the time.\n\n"
    assert judge(said + CELL + 'check("more than 3x at twice", ratio > 3 and busy < 0.3)\n```\n') == ([], {"own": 3})
    assert len(judge(said + CELL + "engine(seats=3, load=2, budget=70)\n```\n")[0]) == 3
    assert not judge("It is idle 70 % of the time, at half the load.\n\n" + CELL + "f(0.5, busy=0.3)\n```\n")[0]


def dropdown(question, answer):
    return f":::{{dropdown}} {question}\n{answer}\n:::"


def test_a_question_states_values_and_its_answer_reckons_with_them(judge):
    question = "Your A10G makes 600 tokens per second and costs a dollar an hour. Dollars per million tokens?"
    assert judge(dropdown(question, "That is 0.46 dollars."))[0] == []
    assert judge(dropdown("Median TTFT is 200 ms, the 99th percentile 9 s. Why?", "A queue of 45 requests."))[0] == []


def test_a_question_does_not_hide_what_is_known(judge):
    said = [
        judge(dropdown("What did batching gain?", "It makes 8 times the throughput."))[0],
        judge(dropdown("Your A10G costs \\$1.006 an hour and makes 9 tokens/s. Cost?", "Reckon."))[0],
        judge(dropdown("A T4 has 320 GB/s. How fast is 1 GB?", "Reckon."))[0],
        judge(dropdown("A T4 has 16 GB. How many fit?", "Reckon."))[0],
    ]
    assert [len(found) for found in said] == [1, 1, 1, 1]


def test_an_excuse_is_a_reason_in_the_line_above_and_excuses_something(judge):
    assert judge("% figure: our estimate\nIt takes 900 users.") == ([], {"excused": 1})
    assert len(judge("% figure:\nIt takes 900 users.")[0]) == 1
    assert len(judge("% figure: our estimate\nIt takes users.\n\nIt takes 900 users.")[0]) == 2
    found, _ = judge("% figure: our estimate\nIt takes 900 users {cite}`known`.")
    assert "no figure here needs its excuse" in found[0].reason


def test_an_excuse_of_code_excuses_no_figure_and_both_may_stand_above(judge):
    assert len(judge("% unchecked: not run here\nIt takes 900 users.")[0]) == 1
    assert judge("% unchecked: not run here\n% figure: our estimate\nIt takes 900 users.") == ([], {"excused": 1})
    assert judge("% figure: our estimate\n% unchecked: not run here\nIt takes 900 users.") == ([], {"excused": 1})
    found, _ = judge("% figure: our estimate\n```json\n{}\n```")
    assert [(p.line, "excuses nothing" in p.reason) for p in found] == [(4, True)]


def test_a_citation_has_an_entry_and_an_entry_leads_somewhere(judge):
    found, _ = judge("As {cite}`known,gone` says.")
    assert [(p.line, p.reason) for p in found] == [(3, "book/references.bib has no gone")]
    found, _ = judge("Words.", BIBLIOGRAPHY + "@misc{paper, title={Paper}}\n")
    assert [(p.path, p.line) for p in found] == [("book/references.bib", 2)] and "neither url nor doi" in found[
        0
    ].reason
    assert not judge("Words.", "@misc{paper, title={Paper}, doi={10.1000/1}}\n")[0]


def test_a_page_that_shows_the_data_shows_the_day_it_was_read(judge):
    for call in (
        "tables.price('t4')",
        "tables.gpu('t4')",
        "memory.plan('m', 't4')",
        "roofline.prefill_s()",
        "cost.lab_usd()",
    ):
        cell = CELL + f"x = 1\nprint({call})\n```\n"
        found, _ = judge(cell)
        assert [(p.line, "the day they were read" in p.reason) for p in found] == [(5, True)], call
        assert not judge("```{chapter-header}\n```\n\n" + cell)[0]
        assert not judge(cell.replace("x = 1", "print(offer['read'])"))[0]


def test_numbers_are_read_in_digits_and_in_words():
    assert quantities.values("1,020 or 135 million; ten thousand, thirty-two and 0.25") == (1020, 135e6, 1e4, 32, 0.25)
    assert [f.words for f in quantities.find("20 to 30 times, 25–30 minutes; 1, 2 and 4 requests")] == [
        "20 to 30 times",
        "25–30 minutes",
        "1, 2 and 4 requests",
    ]
