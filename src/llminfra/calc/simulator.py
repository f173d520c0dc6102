"""A serving system, a request at a time: replicas that step, a router before them, and what their users saw.

Time is kept in whole nanoseconds, and events at the same time keep an order, so that both Pythons tell the same story.
What a step costs comes from a function of four numbers: `roofline.step_time` predicts it from a GPU's sheet,
`calibration.step_time` from steps that were measured.
"""

import heapq

from . import replica, scheduler, tables

ROUTINGS = ("round robin", "least loaded", "prefix affinity")
ARRIVES, STEPPED, MOVED, WAKES = range(4)


def simulate(
    requests: list,
    step_s,
    replicas: int = 1,
    routing: str = "round robin",
    prefill_replicas: int = 0,
    transfer_s_per_token: float = 0.0,
    concurrency: "int | None" = None,
    slo_ttft_s: "float | None" = None,
    slo_itl_s: "float | None" = None,
    **engine,
) -> dict:
    """Run requests (of `workload.requests`) through replicas whose steps take `step_s(tokens, samples, pairs, cached)`.

    tokens: processed in the step; samples: sequences that get a token; pairs: of tokens and positions they attend to;
    cached: tokens whose keys and values are read. All replicas are alike; `engine` sets each of them:

    - batching: "continuous", "static" (a batch of max_num_seqs runs until its longest is done), or "dynamic" (so too,
      but started after max_wait_s with what is there);
    - max_num_seqs; max_num_batched_tokens, the token budget of a step; chunked_prefill (False: prompts run whole, and the
      budget is at least the longest request, as vLLM demands); policy: "fcfs", first come, first served, or "priority";
    - blocks (None: memory without end), block_tokens; reserve: "paged", "power of two", or a number of tokens set aside
      for each request (`kvblocks.reserved_tokens`);
    - prefix_caching: prompts of one group share the blocks of what they share;
    - windows: for each group of layers how far back they look, in tokens (0: to the beginning). All groups take their blocks
      from the same pool, so that a block holds its tokens for one group only; what a window has passed is given back.

    `routing` is one of `ROUTINGS`: prefix affinity sends a group to one replica while that has not more than twice the
    mean load. With `prefill_replicas`, so many further replicas run prompts only, and their cache moves to the others in
    `transfer_s_per_token`. With `concurrency`, arrival times are left out: so many users each send their next request
    when the last one is answered.

    Returns duration_s, requests_per_s, output_tokens_per_s, goodput_per_s (requests within both SLOs, per second; the
    inter-token limit holds for a request's mean), ttft_s, itl_s, e2e_s and queue_s (each mean, p50, p90, p95, p99, max),
    utilisation (share of the time that a replica steps, one each), mean_batch, steps, preemptions, recomputed_tokens,
    prefix_hit_share, kv_use_mean, kv_waste_mean (0 to 1, over steps; None without an end of memory; waste None with
    prefix caching, where places are shared, and with windows), kv (pairs of seconds and share used, of the fullest replica), gaps (how many itl_s
    describes), largest_step_s, and requests: a tuple each of arrival_ns, start_ns, first_ns, finish_ns, prompt, output, preemptions and replica.

    Raises ValueError for a setting that cannot be, and for a request without a prompt or an output, or one that no replica
    could ever hold.
    """
    tables.whole("replicas", replicas)
    if prefill_replicas != 0:
        tables.whole("prefill_replicas", prefill_replicas)
    tables.not_negative("transfer_s_per_token", transfer_s_per_token)
    if routing not in ROUTINGS:
        raise tables.unknown("routing", routing, list(ROUTINGS))
    if not requests:
        raise ValueError("no requests to simulate")
    checked = replica.settings(engine)
    if prefill_replicas and tuple(checked["windows"]) != (0,):
        raise ValueError("a cache with windows is not moved: leave out prefill_replicas, or set windows to (0,)")
    for number, request in enumerate(requests):
        for what in ("prompt", "output"):
            tables.whole(f"{what} of request {number}", getattr(request, what))
        tables.not_negative(f"arrival_ns of request {number}", request.arrival_ns)
    if not checked["chunked_prefill"]:
        longest = max([request.prompt + request.output for request in requests])
        checked["max_num_batched_tokens"] = max(checked["max_num_batched_tokens"], longest)
    role = "decode" if prefill_replicas else "both"
    pool = [replica.Replica(i, step_s, checked, role) for i in range(replicas)]
    entry = [replica.Replica(replicas + i, step_s, checked, "prefill") for i in range(prefill_replicas)] or pool
    every = pool if entry is pool else pool + entry
    sequences = [scheduler.Sequence(i, request) for i, request in enumerate(requests)]
    for sequence in sequences:
        if not pool[0].fits(sequence.request):
            total = sequence.request.prompt + sequence.request.output
            raise ValueError(
                f"request {sequence.number} of {total} tokens never fits: give more blocks, or a smaller reserve"
            )
    events: list = []
    order = 0
    first = len(sequences) if concurrency is None else min(len(sequences), tables.whole("concurrency", concurrency))
    for sequence in sequences[:first]:
        events.append((sequence.request.arrival_ns if concurrency is None else 0, order, ARRIVES, sequence))
        order += 1
    heapq.heapify(events)
    upcoming = first
    routed = [0, 0]
    samples: list = []
    stride, seen = 1, 0
    now = 0
    flush = False
    while events or flush:
        if events:
            now = events[0][0]
        while events and events[0][0] == now:
            _, _, kind, what = heapq.heappop(events)
            if kind == ARRIVES:
                if concurrency is not None:
                    what.arrival_ns = now
                _route(what, entry, routing, routed, 0).add(what)
            elif kind == MOVED:
                _route(what, pool, "least loaded", routed, 1).add(what)
            elif kind == STEPPED:
                for sequence in what.finish(now):
                    if sequence.finish_ns < 0:
                        delay = int(transfer_s_per_token * sequence.computed * 1e9 + 0.5)
                        heapq.heappush(events, (now + delay, order, MOVED, sequence))
                        order += 1
                    elif upcoming < len(sequences):
                        heapq.heappush(events, (now, order, ARRIVES, sequences[upcoming]))
                        order += 1
                        upcoming += 1
        for each in every:
            if each.busy:
                continue
            end = each.begin(now, flush)
            if end is not None:
                flush = False
                heapq.heappush(events, (end, order, STEPPED, each))
                order += 1
            elif each.waiting() and checked["batching"] == "dynamic":
                wake = each.scheduler.waiting[0][1].arrival_ns + checked["max_wait_ns"]
                if wake > now:
                    heapq.heappush(events, (wake, order, WAKES, each))
                    order += 1
        if checked["blocks"] is not None:
            seen += 1
            if seen % stride == 0:
                samples.append((now / 1e9, max(each.pool.used for each in every) / checked["blocks"]))
                if len(samples) == 512:
                    samples, stride = samples[::2], 2 * stride
        # Nothing else can happen while an incomplete batch waits to be full: run it.
        flush = not events and not flush and any(each.waiting() for each in every)
    return _report(sequences, every, checked, samples, now, slo_ttft_s, slo_itl_s)


def _route(sequence, among: list, routing: str, routed: list, turn: int):
    """Return the replica that takes a sequence; ties go to the lowest number."""
    if len(among) == 1:
        return among[0]
    group = sequence.request.group
    if routing == "round robin":
        routed[turn] += 1
        return among[(routed[turn] - 1) % len(among)]
    least = min(among, key=lambda each: (each.outstanding, each.number))
    if routing == "prefix affinity" and group >= 0:
        home = among[group % len(among)]
        if home.outstanding * len(among) <= 2 * sum(each.outstanding for each in among):
            return home
    return least


def percentile(values: list, share: float) -> float:
    """Return the value at a share (0 to 1) of sorted (value, count) pairs, in a straight line between neighbours."""
    place = share * (sum(count for _, count in values) - 1)
    low = int(place)
    passed = 0
    for i, (value, count) in enumerate(values):
        passed += count
        if passed > low:
            after = values[i + 1][0] if passed == low + 1 and i + 1 < len(values) else value
            return value + (after - value) * (place - low)
    raise ValueError("no values")


def summary(values: list) -> dict:
    """Return mean, p50, p90, p95, p99 and max of (nanoseconds, count) pairs, in seconds; all 0 if there are none."""
    if not values:
        return {"mean": 0.0, "p50": 0.0, "p90": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    values = sorted(values)
    total = sum(count for _, count in values)
    found = {"mean": sum(value * count for value, count in values) / total / 1e9, "max": values[-1][0] / 1e9}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        found[name] = percentile(values, share) / 1e9
    return found


def _report(
    sequences: list,
    every: list,
    checked: dict,
    samples: list,
    now: int,
    slo_ttft_s: "float | None",
    slo_itl_s: "float | None",
) -> dict:
    begun = min(sequence.arrival_ns for sequence in sequences)
    duration_s = (now - begun) / 1e9
    good = tokens = 0
    rows = []
    for sequence in sequences:
        arrival, output = sequence.arrival_ns, sequence.request.output
        ttft_s = (sequence.first_ns - arrival) / 1e9
        mean_itl_s = (sequence.finish_ns - sequence.first_ns) / 1e9 / max(1, output - 1)
        good += (slo_ttft_s is None or ttft_s <= slo_ttft_s) and (slo_itl_s is None or mean_itl_s <= slo_itl_s)
        tokens += output
        times = (arrival, sequence.start_ns, sequence.first_ns, sequence.finish_ns)
        rows.append(times + (sequence.request.prompt, output, sequence.preemptions, sequence.replica))
    busy_ns = sum(each.busy_ns for each in every)
    prompts = sum(each.scheduler.prompt_tokens for each in every)
    paged = checked["blocks"] is not None
    whole = not checked["prefix_caching"] and tuple(checked["windows"]) == (0,)  # each block's tokens are one request's
    held = sum(each.held_ns for each in every)
    waste = held and sum(each.waste_ns for each in every) / held
    return {
        "duration_s": duration_s,
        "requests_per_s": len(sequences) / duration_s,
        "output_tokens_per_s": tokens / duration_s,
        "goodput_per_s": good / duration_s,
        "ttft_s": summary([(row[2] - row[0], 1) for row in rows]),
        "itl_s": summary([gap for each in every for gap in each.gaps]),
        "e2e_s": summary([(row[3] - row[0], 1) for row in rows]),
        "queue_s": summary([(row[1] - row[0], 1) for row in rows]),
        "utilisation": [each.busy_ns / (now - begun) for each in every],
        "mean_batch": sum(each.batch_ns for each in every) / busy_ns,
        "steps": sum(each.steps for each in every),
        "preemptions": sum(each.preemptions for each in every),
        "recomputed_tokens": sum(each.recomputed for each in every),
        "prefix_hit_share": sum(each.scheduler.hit_tokens for each in every) / prompts,
        "kv_use_mean": held / (checked["blocks"] * busy_ns) if paged else None,
        "kv_waste_mean": waste if paged and whole else None,
        "kv": samples,
        "gaps": sum(count for each in every for _, count in each.gaps),
        "largest_step_s": max(each.largest_step_ns for each in every) / 1e9,
        "requests": rows,
    }
