"""What a client and a load test do, seen by the server."""

import itertools
import statistics
import time

import pytest
from ex1_engine import BUSY, Answer, Engine, served

from llminfra.grade import judge, judge_equal
from llminfra.process import free_port

SLACK_S = 1.0
"""What a busy machine may add to a wait."""

WORDS = (
    "café",
    "naïve",
    "日本語",
    "🚀🛰️",
    "data: x",
    "[DONE]",
    "line\u2028separator",
    "next\u0085line",
    "a\nb",
    "\x0b\x0c",
    'quote"',
    "%",
)


@pytest.fixture
def call(submission):
    with submission.process() as call:
        yield call


def settings(url, draw, **values):
    found = {"base_url": url, "model": "Lark-7B", "api_key": f"sk-{draw.randrange(10**9)}", "retries": 3}
    return {**found, "wait_s": 0.02, "longest_wait_s": 0.1, "connect_s": 2.0, "silence_s": 5.0, **values}


SHAPE = {"text": str, "usage": dict | None, "finish_reason": str | None, "error": dict | None, "attempts": int}
SHAPE |= {"start_s": float | int, "token_s": list}


def judge_result(result):
    """Fail unless a result has the keys that the brief states, with values of their kinds."""
    whole = isinstance(result, dict) and all(isinstance(result.get(name, ...), kind) for name, kind in SHAPE.items())
    if whole and result["error"] is not None:
        whole = result["error"].keys() >= {"kind", "status", "message"}
    judge(whole, given="a result", seen=result, expected=f"a dictionary with {', '.join(SHAPE)}, as in the brief")


def ask(call, *args):
    """Return what `client.ask` does, if it is a result."""
    result = call("client:ask", *args)
    judge_result(result)
    return result


def kind(result):
    return result["error"] and result["error"]["kind"]


def status(result):
    return result["error"] and result["error"]["status"]


def message(result):
    return (result["error"] or {}).get("message") or ""


def test_r7_streams(call, draw):
    pieces = [draw.choice(WORDS) + draw.choice([" ", ""]) for _ in range(12)]
    pieces[draw.randrange(12)] = WORDS[6]
    pieces[draw.randrange(3)] = WORDS[3]
    cuts, tokens = draw.choice([draw]), draw.randrange(20, 90)
    prompt, most = f"Tell me about {draw.randrange(10**6)}", draw.randrange(5, 500)
    whole = settings("", draw)

    def reply(request):
        return Answer(pieces=pieces, tokens=tokens, cut=cuts, gap_s=0.005)

    with served("Lark-7B", reply, whole["api_key"]) as (engine, url):
        longest = 0.0
        for _ in range(3):
            found = ask(call, {**whole, "base_url": url}, prompt, most)
            given = "a stream of pieces that are cut anywhere, in characters too"
            judge_equal(found["error"], None, given=f"{given}: error")
            judge_equal(found["text"], "".join(pieces), given=given)
            judge_equal((found["usage"] or {}).get("completion_tokens"), tokens, given="tokens by the server's count")
            judge_equal([found["finish_reason"], found["attempts"]], ["stop", 1], given="finish reason and attempts")
            times = [found["start_s"], *found["token_s"]]
            judge(
                len(times) == len(pieces) + 1 and times == sorted(times),
                given=f"{len(pieces)} pieces of text after the role",
                seen=f"{len(times) - 1} times, from start_s on: {times}",
                expected="a time for each piece",
            )
            longest = max(longest, times[-1] - times[1])
        judge(
            longest > 0.03,
            given=f"{len(pieces)} pieces of text, 5 ms apart",
            seen=f"all within {longest:.3f} s",
            expected="the times at which they came",
        )
        body, head = engine.requests[0].body, engine.requests[0].headers
    judge_equal(
        {name: body.get(name) for name in ("model", "messages", "max_tokens", "stream", "stream_options")},
        {
            "model": "Lark-7B",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": most,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        given="the body of the request",
    )
    judge_equal(head.get("authorization"), f"Bearer {whole['api_key']}", given="Authorization")


def test_r8_waits_that_grow(call, draw):
    first, most = draw.randrange(10, 50) / 100, draw.randrange(200, 400) / 100
    given = settings("", draw, wait_s=first, longest_wait_s=most)
    after = draw.randrange(3, 9)
    for retry in (1, 2, 3, 9):
        full = min(first * 2 ** (retry - 1), most)
        for header, low, high in ((None, full / 2, full), (str(after), after, after + full), ("soon", full / 2, full)):
            waits = [call("client:backoff", given, retry, header) for _ in range(8)]
            number = all(isinstance(wait, float | int) for wait in waits)
            judge(number, given="backoff", seen=waits, expected="seconds")
            said = f"wait_s {first}, longest_wait_s {most}, retry {retry}, Retry-After {header}"
            judge(
                low <= min(waits) and max(waits) <= high,
                given=said,
                seen=[round(wait, 3) for wait in waits],
                expected=f"{low:g} to {high:g} s",
            )
            judge(
                max(waits) - min(waits) > 0.1 * (high - low),
                given=f"{said}, asked eight times",
                seen=[round(wait, 3) for wait in waits],
                expected="waits that differ",
            )


def test_r8_what_is_sent_again(call, draw):
    answers = []

    def reply(request):
        return answers.pop(0) if answers else Answer()

    with served("Lark-7B", reply) as (engine, url):
        wait = draw.randrange(20, 40) / 100
        one = settings(url, draw, wait_s=wait, longest_wait_s=10.0)
        busy = draw.choice([429, 503])
        answers[:] = [Answer(busy), Answer(stops="reset")]
        found = ask(call, one, "Hi", 5)
        judge_equal(
            [found["error"], found["text"], found["attempts"]],
            [None, "Hello there.", 3],
            given=f"status {busy}, then a connection that is closed, then an answer: error, text, attempts",
        )
        sent = [request.at_s for request in engine.requests]
        gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
        judge(
            all(wait * factor / 2 <= gap <= wait * factor + SLACK_S for gap, factor in zip(gaps, (1, 2), strict=True)),
            given=f"wait_s {wait}",
            seen=[round(gap, 2) for gap in gaps],
            expected=f"{wait / 2:g} to {wait:g} s, then {wait:g} to {2 * wait:g} s",
        )
        engine.requests.clear()
        after = draw.randrange(5, 8) / 10
        answers[:] = [Answer(429, {"Retry-After": str(after)})]
        found = ask(call, settings(url, draw), "Hi", 5)
        gap = engine.requests[-1].at_s - engine.requests[0].at_s
        judge(
            after <= gap <= after + 0.02 + SLACK_S and found["attempts"] == 2,
            given=f"status 429 with Retry-After: {after}",
            seen=f"sent again after {gap:.2f} s",
            expected=f"{after:g} s or a little more",
        )
        engine.requests.clear()
        retries = draw.randrange(1, 4)
        answers[:] = [Answer(503)] * 9
        found = ask(call, settings(url, draw, retries=retries), "Hi", 5)
        judge_equal(
            [kind(found), status(found), message(found), found["attempts"], len(engine.requests)],
            ["unavailable", 503, BUSY, retries + 1, retries + 1],
            given=f"status 503 for ever, {retries} retries: kind, status, message, attempts, requests",
        )
    found = ask(call, settings(f"http://127.0.0.1:{free_port()}/v1", draw, retries=retries), "Hi", 5)
    judge_equal(
        [kind(found), status(found), found["attempts"]],
        ["unavailable", None, retries + 1],
        given=f"nothing listens, {retries} retries: kind, status, attempts",
    )


def test_r9_what_is_never_sent_again(call, draw):
    pieces = [f"{draw.randrange(1000)} " for _ in range(draw.randrange(2, 6))]
    code, said = draw.choice([400, 401, 404]), f"max_tokens is too large: {draw.randrange(10**6)}"
    text = "".join(pieces)
    refused = Answer(code, message=said)
    cases = (
        (f"status {code}", refused, ["refused", code, ""], said),
        ("status 500", Answer(500, message=said), ["refused", 500, ""], said),
        ("tokens, then a closed connection", Answer(pieces=pieces, stops="closed"), ["broken", 200, text], ""),
        ("tokens, then an end without [DONE]", Answer(pieces=pieces, stops="end"), ["broken", 200, text], ""),
        ("tokens, then an error", Answer(pieces=pieces, stops="error"), ["broken", 200, text], "Internal server error"),
    )
    answers = []
    with served("Lark-7B", lambda request: answers[-1]) as (engine, url):
        for given, answer, expected, said_by in cases:
            answers.append(answer)
            engine.requests.clear()
            found = ask(call, settings(url, draw), "Hi", 5)
            seen = [kind(found), status(found), found["text"], found["attempts"]]
            judge_equal(seen, [*expected, 1], given=f"{given}: kind, status, text, attempts")
            judge_equal(len(engine.requests), 1, given=f"{given}: requests")
            judge(said_by in message(found), given=given, seen=message(found), expected=said_by)


def test_r9_silence(call, draw):
    pieces = [f"{draw.randrange(1000)} " for _ in range(3)]
    answers = []
    with served("Lark-7B", lambda request: answers[-1]) as (engine, url):
        for given, answer, code, text in (
            ("a server that says nothing", Answer(stops="mute"), None, ""),
            ("a stream that stops without an end", Answer(pieces=pieces, stops="silence"), 200, "".join(pieces)),
        ):
            answers.append(answer)
            engine.requests.clear()
            silence = draw.randrange(3, 6) / 10
            found = ask(call, settings(url, draw, silence_s=silence, connect_s=9.0), "Hi", 5)
            took = time.monotonic() - engine.requests[0].at_s if engine.requests else 0.0
            judge_equal(
                [
                    kind(found),
                    status(found),
                    found["text"],
                    found["attempts"],
                    len(engine.requests),
                ],
                ["timeout", code, text, 1, 1],
                given=f"{given}: kind, status, text, attempts, requests",
            )
            judge(
                0.7 * silence <= took < silence + 2 * SLACK_S,
                given=f"{given}, silence_s {silence}",
                seen=f"{took:.2f} s",
                expected=f"about {silence} s",
            )
        answers.append(Answer(pieces=[*pieces, *pieces], gap_s=0.15))
        found = ask(call, settings(url, draw, silence_s=0.6), "Hi", 5)
        judge_equal(
            found["error"], None, given="an answer of 0.75 s whose pieces come every 0.15 s, silence_s 0.6: error"
        )


def test_r10_in_flight(call, draw):
    at_once = draw.randrange(3, 6)
    prompts = [f"{number}: {draw.randrange(10**6)}" for number in range(4 * at_once)]
    fails = dict(zip(draw.sample(prompts[1:], 3), (400, 503, 429), strict=True))
    first, gap = draw.randrange(6, 9) / 100, draw.randrange(10, 20) / 1000
    server: list[Engine] = []

    def reply(request):
        prompt = request.body["messages"][0]["content"]
        if prompt in fails:
            return Answer(fails[prompt])
        if prompt == prompts[0]:
            return Answer(pieces=[prompt], held=lambda number: len(server[0].requests) < len(prompts))
        return Answer(
            pieces=[f"{prompt} ", *"four"],
            first_s=first,
            gap_s=gap,
            held=lambda number: server[0].most < at_once,  # until all slots have been in use
        )

    with served("Lark-7B", reply) as (engine, url):
        server.append(engine)
        results = call("loadtest:run", settings(url, draw), prompts, 7, at_once)
        asked = [request.body["messages"][0]["content"] for request in engine.requests]
        judge_equal(sorted(asked), sorted(prompts), given="the prompts that the server got, each once")
        judge_equal(engine.most, at_once, given=f"in_flight {at_once}: most requests at once")
        slow = next(request for request in engine.requests if request.body["messages"][0]["content"] == prompts[0])
        late = [request for request in engine.requests if request.at_s > slow.end_s]
        judge(
            not late,
            given="a slow request beside quick ones",
            seen=f"{len(late)} requests were sent after its end",
            expected="the next request is sent when any one is done",
        )
    judge(
        isinstance(results, list) and len(results) == len(prompts),
        given=f"{len(prompts)} prompts",
        seen=results,
        expected="a list of a result for each",
    )
    for prompt, result in zip(prompts, results, strict=True):
        judge_result(result)
        if prompt in fails:
            judge(
                result["error"] is not None and result["attempts"] == 1,
                given=f"status {fails[prompt]} in a load test",
                seen=result,
                expected="an error after one attempt",
            )
        else:
            judge(result["text"].startswith(prompt), given=prompt, seen=result["text"], expected="its result, in order")
    quick = [one for one, prompt in zip(results, prompts, strict=True) if prompt not in fails][1:]
    ttft = [one["token_s"][0] - one["start_s"] for one in quick]
    spans = [one["token_s"][-1] - one["token_s"][0] for one in quick]
    judge(
        0.9 * first <= min(ttft) < first + SLACK_S and gap * 3 < max(spans),
        given=f"{len(quick)} answers: a first token after {first} s, then four, each after {gap} s",
        seen=f"TTFT {min(ttft):.3f} s at best, and {max(spans):.3f} s for four more at most",
        expected="the times at which they came",
    )


GRAIN = 1024
"""Times are multiples of 1/1024 s: sums and differences of these are exact."""


def drawn_results(draw):
    """Return results as `client.ask` returns them, some of them errors that had tokens."""
    results = []
    for number in range(draw.randrange(30, 40)):
        start = draw.randrange(8000, 20000)
        times = [start + draw.randrange(50, 900)]
        for _ in range(draw.choice([0, 0, 3, 7, 12])):
            times.append(times[-1] + draw.randrange(5, 80))
        tokens = len(times) if len(times) == 1 else len(times) + draw.randrange(3)
        error = {"kind": "broken", "status": 200, "message": "cut"} if number % 5 == 1 else None
        if error:
            start, times = start - 7000 * (number == 1), [time + 30000 for time in times]
        results.append(
            {
                "text": "x",
                "usage": None if error else {"prompt_tokens": 5, "completion_tokens": tokens},
                "finish_reason": "stop",
                "error": error,
                "attempts": 1,
                "start_s": start / GRAIN,
                "token_s": [time / GRAIN for time in times],
            }
        )
    refused = {"kind": "refused", "status": 400, "message": "no"}
    results.append({**results[1], "error": refused, "token_s": []})
    return results


def percentile(values, q):
    """Return a percentile with linear interpolation between ranks."""
    return statistics.quantiles(values, n=100, method="inclusive")[q - 1]


def test_r10_summary(call, draw):
    for _ in range(2):
        results = drawn_results(draw)
        good = [one for one in results if one["error"] is None]
        several = [one for one in good if one["usage"]["completion_tokens"] > 1]

        def tpot(one):
            tokens = one["usage"]["completion_tokens"]
            return (one["token_s"][-1] - one["token_s"][0]) / (tokens - 1) if tokens > 1 else 0.0

        ttft = [one["token_s"][0] - one["start_s"] for one in good]
        gaps = [
            after - before for one in good for before, after in zip(one["token_s"], one["token_s"][1:], strict=False)
        ]
        slowest = sorted(several, key=tpot)[len(several) * 3 // 4]
        at = sorted(ttft)[len(ttft) * 3 // 4]
        slo = {"ttft_s": at, "tpot_s": tpot(slowest)}
        met = [one for one, wait in zip(good, ttft, strict=True) if wait <= at and tpot(one) <= slo["tpot_s"]]
        duration = max(one["token_s"][-1] for one in good) - min(one["start_s"] for one in results)
        expected = {
            "requests": len(results),
            "errors": len(results) - len(good),
            "duration_s": duration,
            "output_tokens_per_s": sum(one["usage"]["completion_tokens"] for one in good) / duration,
            "goodput_per_s": len(met) / duration,
            "ttft_s": {f"p{q}": percentile(ttft, q) for q in (50, 90, 99)},
            "itl_s": {f"p{q}": percentile(gaps, q) for q in (50, 90, 99)},
        }
        seen = call("loadtest:summary", results, slo)
        judge(isinstance(seen, dict), given="results", seen=seen, expected="a summary, as in the brief")
        for name, value in expected.items():
            given = f"{len(results)} results, {expected['errors']} of them errors, slo {slo}: {name}"
            values = value if isinstance(value, dict) else {"": value}
            found = seen.get(name) if isinstance(value, dict) else {"": seen.get(name)}
            near = isinstance(found, dict) and all(
                isinstance(found.get(key), int | float) and abs(found[key] - one) < 1e-9 * max(1, abs(one))
                for key, one in values.items()
            )
            judge(near, given=given, seen=seen.get(name), expected=value)
    bad = [one for one in results if one["error"]]
    seen = call("loadtest:summary", bad, slo)
    nothing = {"p50": None, "p90": None, "p99": None}
    wanted = {"requests": len(bad), "errors": len(bad), "output_tokens_per_s": 0, "goodput_per_s": 0}
    wanted |= {"ttft_s": nothing, "itl_s": nothing}
    judge_equal({name: seen.get(name) for name in wanted}, wanted, given="errors alone")
    alone = next(one for one in good if len(one["token_s"]) == 1)
    seen = call("loadtest:summary", [alone], {"ttft_s": 10, "tpot_s": 0.001})
    wait = alone["token_s"][0] - alone["start_s"]
    judge_equal(
        [seen.get("goodput_per_s"), seen.get("ttft_s"), seen.get("itl_s")],
        [1 / wait, {"p50": wait, "p90": wait, "p99": wait}, nothing],
        given="one answer of one token: goodput, TTFT, ITL",
    )
    start, gap = alone["start_s"], draw.randrange(2, 50) / GRAIN
    two = {**alone, "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "token_s": [start + 0.5, start + 0.5 + gap]}
    for most, good_ones in ((gap, 1), (gap / 2, 0)):
        seen = call("loadtest:summary", [two], {"ttft_s": 0.5, "tpot_s": most})
        judge_equal(
            seen.get("goodput_per_s"),
            good_ones / (0.5 + gap),
            given=f"two tokens {gap} s apart, tpot_s {most}: goodput",
        )
