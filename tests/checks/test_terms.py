"""The glossary has enough terms, each with a formula or a link; chapters link them. What does not is refused."""

import re

import pytest
from checks import links, terms

from llminfra.notebook.terms import EVERYDAY, Term, belongs, pattern, read

pytestmark = pytest.mark.heavy


def test_the_glossary_grounds_its_terms(hold, covered):
    hold(terms.problems())
    known = read((terms.ROOT / terms.GLOSSARY).read_text(encoding="utf-8"))
    assert {term.names[0] for term in known} >= EVERYDAY
    covered("glossary", f"{len(known)} terms, each with a formula or a link")


def test_every_chapter_links_the_terms_that_it_uses(hold, covered):
    assert (links.SITE / "index.html").is_file(), "nothing is built: run make book"
    found, linked = terms.unlinked(links.SITE)
    hold(found)
    assert linked > 100
    covered("glossary", f"{linked} first appearances of terms are linked")


@pytest.fixture
def course(tmp_path):
    """A glossary of two terms and a chapter with this body, built: what is wrong with it."""

    def course(
        body, glossary="TTFT\nTime to first token\n  A time: $a + b$.\n\nStep\n  One pass, {ref}`here <ch2-load>`.\n"
    ):
        (tmp_path / "book").mkdir(exist_ok=True)
        (tmp_path / "book" / "glossary.md").write_text(f"# Glossary\n\n```{{glossary}}\n{glossary}```\n")
        (tmp_path / "book" / "01-a.html").write_text(f"<article>{body}</article>")
        return [problem.reason for problem in terms.unlinked(tmp_path, tmp_path)[0]], terms.problems(tmp_path)

    return course


LINK = '<a class="reference internal" href="glossary.html#term-TTFT"><span>TTFT</span></a>'


@pytest.mark.parametrize(
    "body",
    [
        f"<p>The {LINK} first, and then TTFT.</p>",
        '<p>The <a href="glossary.html#term-Time-to-first-token">time to first token</a>; TTFT.</p>',
        "<h2>TTFT</h2><p>Nothing of it in prose: <code>TTFT</code>, TTFTX, ttft_s.</p>",
        "<p>Step by step: a word of everyday English, which belongs to chapter 2.</p>",
    ],
)
def test_a_page_that_links_its_terms_passes(course, body):
    assert course(body)[0] == []


@pytest.mark.parametrize(
    "body",
    [
        "<p>The TTFT alone.</p>",
        "<p>A <em>time to\nfirst token</em>.</p>",
        f"<p>TTFT before its link.</p><p>{LINK}</p>",
        '<p><a href="02-b.html">See chapter 2</a> on TTFT.</p>',
    ],
)
def test_a_term_that_is_used_before_any_link_is_refused(course, body):
    (reason,) = course(body)[0]
    assert reason.startswith("uses “TTFT” without a link to the glossary")


def test_a_glossary_with_a_bare_or_doubled_term_is_refused(course):
    _, found = course("", "TTFT\n  A time.\n\nttft\n  A time: $a$.\n")
    reasons = [re.sub(r" and at least.*", "", problem.reason) for problem in found]
    assert reasons == ["has 2 terms,", "“TTFT” has neither a formula nor a link to what measures it", "“TTFT” comes twice"] or reasons == [
        "has 2 terms,", "“TTFT” has neither a formula nor a link to what measures it", "“ttft” comes twice"
    ]  # fmt: skip


def test_terms_are_found_in_the_plural_and_abbreviations_only_in_capitals():
    rag, law = Term(("RAG",), ""), Term(("Little's law",), "")
    assert pattern(rag).search("two RAGs") and not pattern(rag).search("a rag, RAG-like")
    assert pattern(law).search("by Little’s law") and pattern(Term(("KV cache",), "")).search("KV-caches")
    step = Term(("Step",), "see {ref}`chapter 2 <ch2-load>`")
    assert belongs(step, "book/02-b.html") and not belongs(step, "book/01-a.html") and not belongs(rag, "book/index")
