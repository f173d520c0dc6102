"""The serving simulator: what becomes of every request, and what its users see."""

from ..calc import memory, roofline, simulator, tables, workload
from . import form, markup, svg

PRECISION = "fp16"
"""What the simulated replicas compute in: every GPU of the tables can."""
SLO_TTFT_S, SLO_ITL_S = 2.0, 0.1
PHASES = (("queue", "waits"), ("prefill", "prefill"), ("decode", "decode"))


def fields() -> list:
    """Return the fields of the simulator."""
    kinds = [("continuous", "continuous"), ("dynamic", "dynamic: full, or 0.1 s old"), ("static", "static: full")]
    pools = [("one", "1 replica"), ("two", "2 replicas"), ("split", "1 for prefill, 1 for decode")]
    return [
        form.select(
            "workload",
            "Workload",
            [(name, workload.known(name)["title"]) for name in workload.workloads()],
            "conversation",
        ),
        form.number("count", "Requests", "120", 10, 500),
        form.number("rate", "Arrivals per second", "2.0", 0.1, 100, 0.1),
        form.model(),
        form.gpu(),
        form.select("pool", "Replicas", pools, "one"),
        form.select("batching", "Batching", kinds, "continuous"),
        form.number("seqs", "Sequences at once", "32", 1, 256, 1, "max_num_seqs"),
        form.select("chunked", "Chunked prefill", [("on", "on"), ("off", "off")], "on"),
        form.number("budget", "Tokens in a step", "2048", 256, 16384, 1, "max_num_batched_tokens"),
    ]


def result(values: dict) -> str:
    """Return what became of every request, and what its users saw of it."""
    model, gpu = tables.model(values["model"]), tables.gpu(values["gpu"])
    longest = workload.known(values["workload"])
    plan = memory.plan(model, gpu, PRECISION, longest["prompt"][-1] + longest["output"][-1])
    if not plan["fits"]:
        raise ValueError(
            f"{model['title']} and its longest request do not fit on one {gpu['title']}: take a smaller model or a larger GPU"
        )
    split = values["pool"] == "split"
    seen = simulator.simulate(
        workload.requests(values["count"], values["workload"], rate_per_s=values["rate"], seed=7),
        roofline.step_time(model, gpu, PRECISION),
        replicas=2 if values["pool"] == "two" else 1,
        prefill_replicas=1 if split else 0,
        transfer_s_per_token=_transfer_s(model, gpu) if split else 0.0,
        slo_ttft_s=SLO_TTFT_S,
        slo_itl_s=SLO_ITL_S,
        batching=values["batching"],
        max_num_seqs=values["seqs"],
        max_num_batched_tokens=values["budget"],
        chunked_prefill=values["chunked"] == "on",
        blocks=plan["blocks"],
        windows=memory.group_windows(model),
    )
    replicas = 1 if values["pool"] == "one" else 2
    what = f"{model['title']} on {replicas} {gpu['title']}"
    good = 100 * seen["goodput_per_s"] / seen["requests_per_s"]
    itl = markup.seconds(seen["itl_s"]["p50"])
    said = (
        f"Half of the requests see their first token within {markup.seconds(seen['ttft_s']['p50'])}, 95 % within "
        f"{markup.seconds(seen['ttft_s']['p95'])}; {markup.fixed(good)} % get it within {markup.fixed(SLO_TTFT_S)} s and "
        f"each further one within {markup.fixed(SLO_ITL_S * 1000)} ms on average."
    )
    most = max([share for _, share in seen["kv"]]) if seen["kv"] else 0
    figures = [
        ("Output", markup.fixed(seen["output_tokens_per_s"]), "tokens per second"),
        (
            "Goodput",
            markup.figure(seen["goodput_per_s"]),
            f"of {markup.figure(seen['requests_per_s'])} requests per second",
        ),
        ("Sequences in a step", markup.fixed(seen["mean_batch"], 1), "on average"),
        ("Cache in use", markup.fixed(100 * seen["kv_use_mean"]) + " %", f"at most {markup.fixed(100 * most)} %"),
        ("Preemptions", markup.fixed(seen["preemptions"])),
    ]
    kinds = [
        ("First token", "ttft_s"),
        ("Between tokens", "itl_s"),
        ("Whole answer", "e2e_s"),
        ("In the queue", "queue_s"),
    ]
    names = ["mean", "p50", "p90", "p95", "p99"]
    rows = [[words] + [markup.seconds(seen[key][name]) for name in names] for words, key in kinds]
    told = (
        f"{values['count']} requests in {markup.seconds(seen['duration_s'])}. Half wait at most "
        f"{markup.seconds(seen['queue_s']['p50'])} and get a token each {itl}; the cache is {markup.fixed(100 * most)} % full "
        "at most."
    )
    return "".join(
        [
            markup.summary(said),
            markup.definitions(figures),
            _timeline(f"What became of {values['count']} requests to {what}", told, seen),
            markup.legend(list(PHASES)),
            markup.table(f"What users see of {what}", ["Time"] + names, rows),
            markup.note(
                f"Predicted from the data sheet in {PRECISION}, lengths drawn from the trace's percentiles, Poisson arrivals. A "
                "short step takes longer in truth: launching its kernels is left out."
            ),
        ]
    )


def _transfer_s(model: dict, gpu: dict) -> float:
    """Return how long a token's cache takes over the link between two GPUs."""
    rate = gpu["link_bytes_per_s"] * tables.assumption("link_efficiency")["value"]
    return memory.kv_bytes_per_token(model) / rate


def _timeline(title: str, told: str, seen: dict) -> str:
    """Draw a row for each request: waiting, prefill, decode; below it how full the cache is."""
    top, bottom, low = 32, 350, 500
    rows, end = seen["requests"], seen["duration_s"]
    begun = min([row[0] for row in rows])
    ticks = [tick for tick in svg.steps(end) if tick <= end]
    x = svg.linear(0, end, svg.LEFT, svg.RIGHT)
    high = (bottom - top) / len(rows)
    drawn: list = [[], [], []]
    for number, row in enumerate(sorted(rows, key=lambda row: row[:4])):
        places = [x((moment - begun) / 1e9) for moment in row[:4]]
        for phase in range(3):
            wide = places[phase + 1] - places[phase]
            if wide >= 0.05:
                drawn[phase].append((places[phase], top + number * high, wide, max(0.3, 0.85 * high)))
    y = svg.linear(0, 1, low, bottom + 58)
    outline = [(x(moment - begun / 1e9), y(share)) for moment, share in seen["kv"]]
    filled = [(svg.LEFT, low)] + outline + [(svg.RIGHT, low)]
    return svg.drawing(
        low + 64,
        title,
        told,
        [
            svg.words(4, top - 12, "requests, in order of arrival"),
            svg.words(4, bottom + 34, "cache in use"),
            svg.across([(x(tick), markup.count(tick)) for tick in ticks], low, top, "seconds"),
        ]
        + [svg.line([(svg.LEFT, y(share)), (svg.RIGHT, y(share))], "grid") for share in (0.5, 1)]
        + [svg.words(svg.LEFT - 8, y(share) + 6, words, "end") for share, words in ((0, "0"), (1, "100 %"))]
        + [svg.boxes(drawn[phase], PHASES[phase][0]) for phase in range(3)]
        + ([svg.area(filled, "soft"), svg.line(outline, "decode")] if outline else []),
    )
