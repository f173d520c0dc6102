"""Each stage of the service by itself: roles, search, generation, settling, events, and how a question's end is counted."""

import asyncio
import threading
import time

import openai
import pytest
from fastapi import HTTPException
from small_index import paper, small_index

from llminfra.errors import StoreError
from llminfra.rag import answer, retrieve, stages
from llminfra.rag.corpus import EVERYONE

TOKENS = {"hr-token": frozenset({"hr"}), "schlüssel": frozenset({"finance"})}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A question to an index of two documents."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    made = small_index(paper("open", "The cache holds sixteen blocks."), paper("other", "The ferry leaves at noon."))
    return retrieve.ask(made, "How many blocks are in the cache?")


def value(measured, name, **labels):
    return measured.registry.get_sample_value(name, labels) or 0


def collected(parts):
    async def collect():
        return [part async for part in parts]

    return asyncio.run(collect())


async def pieces(*said, closed=None):
    try:
        for one in said:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, float):
                await asyncio.sleep(one)
            else:
                yield one
    finally:
        if closed is not None:
            closed.append(True)


@pytest.mark.parametrize(
    ("authorization", "roles"),
    [
        (None, {EVERYONE}),
        ("Bearer hr-token", {EVERYONE, "hr"}),
        ("bearer hr-token", {EVERYONE, "hr"}),
        ("Bearer schlüssel", {EVERYONE, "finance"}),
        ("Basic hr-token", 401),
        ("hr-token", 401),
        ("Bearer ", 401),
        ("", 401),
        ("Bearer hr-token ", 401),
    ],
)
def test_a_token_gives_its_roles_none_gives_everyones_and_a_wrong_one_is_refused(authorization, roles):
    if roles != 401:
        assert stages.readers(TOKENS, authorization) == roles
        return
    with pytest.raises(HTTPException) as refused:
        stages.readers(TOKENS, authorization)
    assert refused.value.status_code == 401 and "hr-token" not in refused.value.detail


class Judge:
    """In the place of a reranker: does what a test says."""

    def __init__(self, act):
        self.act = act

    def judged(self, asked):
        return self.act(asked)


def searched(asked, act, timeout_s=5.0, busy=0):
    """What the stage of search gives or raises, and its metrics; `busy` of its two threads are at work."""
    threads, measured, over = stages.Threads("search", 2), stages.metrics(), threading.Event()

    async def run():
        for _ in range(busy):
            threads.start(over.wait, 20)
        return await stages.search(threads, Judge(act), asked, timeout_s, measured)

    try:
        return asyncio.run(run()), measured
    except stages.Fault as fault:
        return fault, measured
    finally:
        over.set()
        threads.close()


def test_a_search_gives_what_the_reranker_found_and_its_time_is_measured(asked):
    found, measured = searched(asked, lambda one: (retrieve.hybrid(one), 0.7), busy=1)
    assert found == (retrieve.hybrid(asked), 0.7)
    assert value(measured, "rag_stage_seconds_count", stage="search") == 1


def test_a_search_without_a_free_thread_is_refused_at_once_and_not_measured(asked):
    fault, measured = searched(asked, None, busy=2)
    assert (fault.outcome, fault.status, fault.headers) == ("search busy", 503, {"Retry-After": "1"})
    assert value(measured, "rag_stage_seconds_count", stage="search") == 0


def test_a_search_that_fails_or_is_slow_is_a_fault_that_says_so(asked):
    def away(_):
        raise StoreError("postgres:/x 'docs': the server is gone")

    fault, _ = searched(asked, away)
    assert fault.outcome == "store away" and "the server is gone" in fault.detail
    over = threading.Event()
    fault, measured = searched(asked, lambda _: over.wait(20), timeout_s=0.05)
    over.set()
    assert (fault.outcome, fault.detail) == ("search slow", "search took more than 0.05 s")
    assert value(measured, "rag_stage_seconds_count", stage="search") == 1


def test_a_prompt_holds_what_fits_and_nothing_where_nothing_does_but_other_errors_are_not_taken_for_that(asked):
    found = retrieve.hybrid(asked)
    assert [one.document for one in stages.fitted(found, len)] == ["open", "other"]
    assert stages.fitted(found, lambda text: 10_000) == [] == stages.fitted([], len)
    with pytest.raises(ValueError, match="a bug of the tokenizer"):
        stages.fitted(found, lambda text: int("a bug of the tokenizer"))


def test_what_the_model_says_is_limited_by_the_time_of_waiting_for_it(asked):
    measured, closed = stages.metrics(), []

    async def read():
        taken = []
        async for piece in stages.spoken(pieces("The ", "cache", closed=closed), 0.2, measured):
            await asyncio.sleep(0.3)  # a slow reader
            taken.append(piece)
        return taken

    assert asyncio.run(read()) == ["The ", "cache"] and closed == [True]
    assert value(measured, "rag_stage_seconds_sum", stage="generate") < 0.2
    begin = time.monotonic()
    with pytest.raises(stages.Fault, match="the model does not answer: TimeoutError"):
        collected(stages.spoken(pieces("The ", 20.0, closed=closed), 0.05, measured))
    assert time.monotonic() - begin < 10 and closed == [True, True]
    assert value(measured, "rag_stage_seconds_count", stage="generate") == 2


def test_a_model_that_fails_is_a_fault_and_a_bug_is_not_taken_for_that():
    away = openai.APIConnectionError(request=None)
    with pytest.raises(stages.Fault, match="the model does not answer: APIConnectionError") as raised:
        collected(stages.spoken(pieces("The ", away), 5, stages.metrics()))
    assert (raised.value.outcome, raised.value.status) == ("model away", 503)
    with pytest.raises(KeyError):
        collected(stages.spoken(pieces(KeyError("a bug")), 5, stages.metrics()))


def test_a_question_without_passages_is_declined_and_the_model_not_begun(asked):
    measured, begun = stages.metrics(), []

    async def said():
        begun.append(True)
        yield "The cache"

    [reply] = collected(stages.answered(asked, [], 0.1234, said(), measured))
    assert reply.declined and reply.answer == answer.DECLINED and reply.sure == 0.123 and not begun
    assert value(measured, "rag_questions_total", outcome="declined") == 1
    assert value(measured, "rag_stage_seconds_count", stage="settle") == 0


@pytest.mark.parametrize(
    ("said", "outcome"), [("The cache holds sixteen blocks.", "answered"), ("Bananas are blue.", "quoted")]
)
def test_an_answer_is_its_pieces_and_then_the_settled_reply(asked, said, outcome):
    measured = stages.metrics()
    passages = [one.passage for one in retrieve.hybrid(asked)]
    *spoken, reply = collected(stages.answered(asked, passages, 0.9, pieces(said[:5], said[5:]), measured))
    assert spoken == [said[:5], said[5:]]
    assert "The cache holds sixteen blocks. [1]" in reply.answer and reply.quoted == (outcome == "quoted")
    assert reply.sources[0].document == "open" and "Bananas" not in reply.answer
    assert value(measured, "rag_questions_total", outcome=outcome) == 1
    assert value(measured, "rag_stage_seconds_count", stage="settle") == 1


def test_a_stream_ends_with_the_reply_or_with_one_error():
    reply = stages.reply(answer.Answer((), ()), 0.2)
    sent = collected(stages.events(pieces("The\n", reply)))
    assert sent[0] == 'event: token\ndata: {"text": "The\\n"}\n\n'
    assert sent[1].startswith("event: reply\ndata: {") and len(sent) == 2
    sent = collected(stages.events(pieces("The", stages.Fault("model away", "it is away"))))
    assert sent[1:] == ['event: error\ndata: {"detail": "it is away"}\n\n']


def test_a_fault_is_counted_by_its_outcome_and_a_bug_as_failed_with_its_traceback_in_the_log(caplog):
    measured = stages.metrics()
    with pytest.raises(stages.Fault, match="busy"), stages.counted(measured):
        raise stages.Fault("search busy", "all are busy")
    with pytest.raises(stages.Fault, match="its log says why") as raised, stages.counted(measured):
        raise KeyError("a bug")
    assert raised.value.status == 500
    assert [one.exc_info[0] for one in caplog.records] == [KeyError]
    for outcome in ("search busy", "failed"):
        assert value(measured, "rag_questions_total", outcome=outcome) == 1


def test_a_thread_is_free_again_once_its_call_ends():
    async def run():
        threads, over = stages.Threads("probe", 1), threading.Event()
        first = threads.start(over.wait, 20)
        with pytest.raises(stages.Busy):
            threads.start(over.wait)
        over.set()
        assert await first and await asyncio.wait_for(threads.start(lambda: 7), 20) == 7
        threads.close()

    asyncio.run(run())
