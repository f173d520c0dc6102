"""The roofline: where a decode step and a prefill stand under the roof of a GPU."""

from ..calc import roofline, tables
from . import form, markup, svg

PARTS = (
    ("linear", "for the layers' weights"),
    ("attention", "for attention"),
    ("head", "for the head"),
    ("launch", "to start kernels"),
)
"""The parts of a decode step that the roofline names."""
BATCHES = (1, 4, 16, 64, 256)
"""The batches whose decode steps the roofline shows beside the one asked for."""


def fields() -> list:
    """Return the fields of the roofline."""
    return [
        form.model(),
        form.precision(),
        form.gpu(),
        form.number("batch", "Sequences in a decode step", "8", 1, 1024),
        form.number("context", "Tokens of each", "2048", 1, 131072, 1, "in the cache, and in the prompt of a prefill"),
    ]


def result(values: dict) -> str:
    """Return where a decode step and a prefill stand under the roof of a GPU."""
    model, gpu, precision = tables.model(values["model"]), tables.gpu(values["gpu"]), values["precision"]
    batch, context = values["batch"], values["context"]
    decode = roofline.decode_step_s(model, gpu, precision, batch, context)
    prefill = roofline.prefill_s(model, gpu, precision, context)
    knee = roofline.critical_batch(model, gpu, precision)
    ridge = roofline.ridge_flop_per_byte(gpu, precision)
    what = f"{model['title']} in {precision} on one {gpu['title']}"
    took = [("decode", f"Decode, {_sequences(batch)}", decode), ("prefill", "Prefill of one prompt", prefill)]
    peak = roofline.rate_flop_per_s(gpu, precision)
    rows = [
        [
            label,
            markup.seconds(step["seconds"]),
            step["bound"],
            markup.figure(step["flop"] / step["bytes"]),
            markup.fixed(100 * step["flop"] / step["seconds"] / peak, 1) + " %",
            markup.fixed(step["tokens_per_s"]),
        ]
        for _, label, step in took
    ]
    turns = f"from batch {markup.fixed(knee)} on" if knee else "at no batch"
    parts = ", ".join([f"{markup.seconds(decode[key + '_s'])} {words}" for key, words in PARTS if decode[key + "_s"]])
    said = (
        f"A decode step of {_sequences(batch)} takes {markup.seconds(decode['seconds'])} ({parts}), and the prefill of "
        f"{markup.fixed(context)} tokens {markup.seconds(prefill['seconds'])}; the layers' weights are bound by arithmetic {turns}, "
        "attention at none."
    )
    heads = ["Step", "Time", "Bound by", "FLOP per byte", "Of the peak", "Tokens/s"]
    return "".join(
        [
            markup.summary(said),
            _roof(what, gpu, peak, ridge, [(kind, step) for kind, _, step in took], _climb(model, gpu, values)),
            markup.legend(
                [
                    ("roof", "the data sheet's roof"),
                    ("reached", "what steps reach of it"),
                    ("decode", "decode"),
                    ("ring", "decode at batch " + ", ".join([str(size) for size in BATCHES])),
                    ("prefill", "prefill"),
                ]
            ),
            markup.table(what, heads, rows),
        ]
    )


def _sequences(batch: int) -> str:
    return f"{markup.fixed(batch)} sequence" + ("s" if batch > 1 else "")


def _climb(model: dict, gpu: dict, values: dict) -> list:
    steps = [roofline.decode_step_s(model, gpu, values["precision"], size, values["context"]) for size in BATCHES]
    return [(step["flop"] / step["bytes"], step["flop"] / step["seconds"] / 1e12) for step in steps]


def _roof(what: str, gpu: dict, peak: float, ridge: float, steps: list, climb: list) -> str:
    """Draw the roof in TFLOP/s over FLOP per byte, and a dot for each step."""
    top, bottom = 44, 310
    slope, high = gpu["bandwidth_bytes_per_s"] / 1e12, peak / 1e12
    points = [(kind, step["flop"] / step["bytes"], step["flop"] / step["seconds"] / 1e12) for kind, step in steps]
    lefts = [point[1] for point in points] + [point[0] for point in climb]
    across = svg.decades(min(lefts), max(max(lefts), 2 * ridge))
    upward = svg.decades(0.8 * slope * across[0], high)
    x = svg.logarithmic(across[0], across[-1], svg.LEFT, svg.RIGHT)
    y = svg.logarithmic(upward[0], upward[-1], bottom, top)
    first = max(across[0], upward[0] / slope)
    compute, bandwidth = tables.assumption("compute_efficiency"), tables.assumption("memory_efficiency")
    reached, fed = high * compute["value"], slope * bandwidth["value"]
    start = max(across[0], upward[0] / fed)
    parts = [
        svg.across([(x(tick), markup.count(tick)) for tick in across], bottom, top, "FLOP per byte of traffic"),
        svg.upward([(y(tick), markup.count(tick)) for tick in upward], "TFLOP/s", top),
        svg.line([(x(ridge), bottom), (x(ridge), y(high))], "guide"),
        svg.words(x(ridge) + 8, bottom - 12, f"ridge {markup.fixed(ridge)}", "start", "faint"),
        svg.line([(x(start), y(fed * start)), (x(reached / fed), y(reached)), (svg.RIGHT, y(reached))], "reached"),
        svg.line([(x(first), y(slope * first)), (x(ridge), y(high)), (svg.RIGHT, y(high))], "roof"),
    ]
    parts += [svg.dot(x(flop_per_byte), y(rate), "ring", 4) for flop_per_byte, rate in climb]
    told = []
    for kind, flop_per_byte, rate in points:
        parts.append(svg.dot(x(flop_per_byte), y(rate), kind))
        parts.append(svg.words(x(flop_per_byte) + 2, y(rate) + 28, kind, "middle", "label"))
        told.append(f"{kind} at {markup.figure(flop_per_byte)} FLOP per byte reaches {markup.figure(rate)} TFLOP/s")
    description = (
        f"The roof rises at {markup.figure(slope)} TB/s to {markup.figure(high)} TFLOP/s, which it meets at "
        f"{markup.figure(ridge)} FLOP per byte. {'; '.join(told).replace('decode', 'Decode', 1)}."
    )
    return svg.drawing(bottom + 64, f"Roofline: {what}", description, parts)
