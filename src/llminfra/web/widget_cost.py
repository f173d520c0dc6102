"""What a million tokens cost, and from which volume your own GPUs are cheaper than an API."""

from ..calc import cost, planner, tables
from . import form, markup, svg

SAMPLES = 121
"""Points of each line of the drawing."""


def fields() -> list:
    """Return the fields of the cost comparison."""
    return [
        form.model(),
        form.precision("fp8"),
        form.gpu("h100"),
        form.number("millions", "Million requests in a month", "50", 0.1, 100000, 0.1),
        form.number("prompt", "Prompt", "1200", 1, 131071, 1, "tokens"),
        form.number("output", "Answer", "300", 1, 131071, 1, "tokens"),
        form.select(
            "offer", "API", [(_key(row), _words(row)) for row in tables.api_prices()], _key(tables.api_prices()[0])
        ),
        form.number("fixed", "Besides the GPUs", "2000", 0, 10**7, 1, "dollars in a month, people first"),
        form.slider("busy", "Share of the GPUs' hours that is sold, in percent", "40", 5, 100),
    ]


def _key(row: dict) -> str:
    return f"{row['provider']}/{row['model']}"


def _words(row: dict) -> str:
    return f"{form.provider(row['provider'])}: {row['model']}"


def result(values: dict) -> str:
    """Return what a month costs either way, the volume from which renting GPUs costs no more, and both over volume."""
    model, gpu = tables.model(values["model"]), tables.gpu(values["gpu"])
    prompt, output = values["prompt"], values["output"]
    offer = [row for row in tables.api_prices() if _key(row) == values["offer"]][0]  # noqa: RUF015 - no default there
    full = _full(model, gpu, values)
    share = values["busy"] / 100

    def month(requests: float) -> dict:
        return cost.build_or_buy(
            requests,
            prompt,
            output,
            offer["usd_per_million_input"],
            offer["usd_per_million_output"],
            full["usd_per_hour"],
            full["tokens_per_s"] / output,
            share,
            values["fixed"],
        )

    requests = values["millions"] * 1e6
    now = month(requests)
    own = cost.usd_per_million_in_and_out(
        full["usd_per_hour"], prompt / full["ttft_s"], full["batch"] / full["itl_s"], share
    )
    replicas = f"{markup.fixed(now['replicas'])} {gpu['title']}"
    even = now["break_even_requests_per_month"]
    pays = (
        f"pays from {markup.count(even)} requests a month"
        if even
        else "never pays: a full GPU costs more than it saves"
    )
    said = (
        f"{markup.count(requests)} requests a month cost {markup.usd(now['buy_usd'])} at the API and "
        f"{markup.usd(now['build_usd'])} on {replicas}; renting GPUs {pays}."
    )
    rows = [
        [
            "API of " + form.provider(offer["provider"]),
            offer["usd_per_million_input"],
            offer["usd_per_million_output"],
            now["buy_usd"],
        ],
        [replicas, own["input"], own["output"], now["build_usd"]],
    ]
    told = []
    for where, prompts, outputs, usd in rows:
        figures = [prompts, outputs, 1000 * usd / requests, usd]
        told.append([where] + [markup.usd(price) for price in figures])
    heads = ["Where", "Per million prompt tokens", "Per million output tokens", "Per thousand requests", "Per month"]
    what = f"{model['title']} in {values['precision']}, {markup.fixed(prompt)} tokens in and {markup.fixed(output)} out"
    return "".join(
        [
            markup.summary(said),
            _drawing(what, requests, even, month, now, prompt + output),
            markup.legend([("prefill", "API"), ("decode", "GPUs"), ("ring", "break-even")]),
            markup.table(what, heads, told),
            markup.note(
                f"GPUs: price of {form.provider(full['provider'])}, read {full['price_read']}, on demand, rented all month, speed predicted from "
                f"the data sheet at {markup.fixed(full['batch'])} requests at once. Prices by the token are for the GPUs' time "
                f"alone, {values['busy']} % of it sold. API: price read {offer['read']}."
            ),
        ]
    )


def _full(model: dict, gpu: dict, values: dict) -> dict:
    """Return the plan of one GPU with as many such requests at once as it holds."""
    asked = (model, gpu, values["precision"], values["prompt"] + values["output"])
    one = planner.plan(*asked, users=1, output_tokens=values["output"])
    if not one["fits"]:
        raise ValueError(f"{model['title']} in {values['precision']} does not fit on one {gpu['title']}: {one['why']}")
    if one["usd_per_hour"] is None:
        raise ValueError(f"{gpu['title']}: no price is known")
    return planner.plan(*asked, users=one["max_concurrent"], output_tokens=values["output"])


def _drawing(what: str, requests: float, even: "float | None", month, now: dict, tokens: int) -> str:
    """Draw dollars a month over tokens a month, both logarithmic."""
    top, bottom = 44, 310
    marks = [requests * tokens] + ([even * tokens] if even and even < 1000 * requests else [])
    across = svg.decades(min(marks) / 30, max(marks) * 30)
    ratio = (across[-1] / across[0]) ** (1 / (SAMPLES - 1))
    volumes = [across[0] * ratio**number for number in range(SAMPLES)]
    costs = [month(volume / tokens) for volume in volumes]
    upward = svg.decades(max(1, costs[0]["buy_usd"]), max(costs[-1]["buy_usd"], costs[-1]["build_usd"]))
    x = svg.logarithmic(across[0], across[-1], svg.LEFT, svg.RIGHT)
    y = svg.logarithmic(upward[0], upward[-1], bottom, top)
    ticks = across[:: 1 if len(across) < 8 else 2]
    parts = [
        svg.across([(x(tick), markup.count(tick)) for tick in ticks], bottom, top, "tokens in a month"),
        svg.upward([(y(tick), "$" + markup.count(tick)) for tick in upward], "per month", top),
        svg.line([(x(requests * tokens), bottom), (x(requests * tokens), top)], "guide"),
    ]
    for kind in ("buy", "build"):
        line = [(volume, one[kind + "_usd"]) for volume, one in zip(volumes, costs)]  # noqa: B905 - MicroPython has no `strict`
        points = [(x(volume), y(usd)) for volume, usd in line if usd >= upward[0]]
        parts.append(svg.line(points, "prefill" if kind == "buy" else "decode"))
    for kind, colour in (("buy", "prefill"), ("build", "decode")):
        parts.append(svg.dot(x(requests * tokens), y(max(upward[0], now[kind + "_usd"])), colour))
    told = f"{markup.count(requests * tokens)} tokens a month cost {markup.usd(now['buy_usd'])} at the API, {markup.usd(now['build_usd'])} on GPUs."
    if even and even * tokens <= across[-1]:
        parts.append(svg.dot(x(even * tokens), y(max(upward[0], month(even)["buy_usd"])), "ring", 5))
        told += f" Both cost the same at {markup.count(even * tokens)} tokens."
    return svg.drawing(bottom + 64, f"Dollars a month over tokens a month: {what}", told, parts)
