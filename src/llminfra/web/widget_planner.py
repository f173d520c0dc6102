"""The capacity planner: how many GPUs, how fast, for how much."""

from ..calc import memory, planner, tables
from . import form, markup, svg

SHARES = ("80", "85", "90", "92", "95", "98")
ADAPTERS = [("0", "none")] + [
    (f"{many}x{rank}", f"{many} of rank {rank}") for many, rank in ((1, 16), (4, 16), (16, 16), (8, 64))
]


def fields() -> list:
    """Return the fields of the capacity planner."""
    return [
        form.model(),
        form.precision(),
        form.gpu(),
        form.select(
            "share",
            "Tensor parallel",
            [(size, size) for size in ("1", "2", "4", "8")],
            "1",
            "GPUs that share each layer",
        ),
        form.number("users", "Users at once", "16", 1, 100000),
        form.number("context", "Context of each", "2048", 2, 131072, 1, "tokens, prompt and answer"),
        form.number("output", "Answer", "256", 1, 131071, 1, "tokens, of the context"),
    ] + form.more(
        [
            form.select(
                "stages",
                "Pipeline parallel",
                [(size, size) for size in ("1", "2", "4")],
                "1",
                "stages that divide the layers",
            ),
            form.select("cache", "Precision of the cache", [("fp16", "16 bits"), ("fp8", "fp8")], "fp16"),
            form.select("memory", "Engine's share of memory", [(part, part + " %") for part in SHARES], "92"),
            form.number("seqs", "Requests in a step", "0", 0, 2048, 1, "at most; 0: the engine's default"),
            form.number("batched", "Tokens in a step", "0", 0, 131072, 1, "at most; 0: the engine's default"),
            form.select("eager", "CUDA graphs", [("no", "recorded"), ("yes", "off: eager mode")], "no"),
            form.select("adapters", "LoRA adapters at once", ADAPTERS, "0"),
        ]
    )


def result(values: dict) -> str:
    """Return how many GPUs serve the users, how fast, and for how much; and the same for every other GPU."""
    model, gpu, share = tables.model(values["model"]), tables.gpu(values["gpu"]), int(values["share"])
    asked = (values["precision"], values["context"], values["users"])
    engine = _engine(values)
    split = {"tensor_parallel": share, "pipeline_parallel": int(values["stages"])}
    kv = values["cache"] if values["cache"] == "fp8" else None
    settings = {"output_tokens": values["output"], "kv_precision": kv}
    settings.update(split)
    settings.update(engine)
    plan = planner.plan(model, gpu, *asked, **settings)
    share = share * split["pipeline_parallel"]
    rows: list = []
    chosen = None
    for row in planner.compare(model, *asked, planned=plan, **settings):
        if row["gpu"] == gpu["name"]:
            chosen = len(rows)
        title = tables.gpu(row["gpu"])["title"].replace("NVIDIA ", "")
        rows.append([title] + (_planned(row) if row["fits"] else [row["why"]]))
    many = values["users"] > 1
    users = f"{markup.fixed(values['users'])} user" + ("s" if many else "")
    what = f"{model['title']} in {values['precision']}"
    heads = ["GPU", "GPUs", "Users on each", "First token", "Next token", "Tokens/s", "Per hour", "Per million tokens"]
    told = [
        _memory(model, gpu, values, kv, split, engine),
        markup.table(f"{what} for {users} with {markup.fixed(values['context'])} tokens each", heads, rows, chosen),
        markup.note(_sources(plan, share)),
    ]
    if not plan["fits"]:
        return markup.summary(f"{what} does not fit on {_gpus(share, gpu)}: {plan['why']}.") + "".join(told)
    million = _usd(plan["usd_per_million_output_tokens"])
    said = (
        f"{users} of {model['title']} need{'' if many else 's'} {_gpus(plan['gpus'], gpu)}: the first token comes after "
        f"{markup.seconds(plan['ttft_s'])}, each further one after {markup.seconds(plan['itl_s'])}, and a million output "
        f"tokens cost {million}."
    )
    figures = [
        ("GPUs", markup.fixed(plan["gpus"]), f"{plan['replicas']} replicas of {share}" if share > 1 else ""),
        ("Users on each replica", markup.fixed(plan["batch"]), f"room for {markup.fixed(plan['max_concurrent'])}"),
        (
            "First token",
            markup.seconds(plan["ttft_s"]),
            f"alone; the last of a burst {markup.seconds(plan['ttft_burst_s'])}",
        ),
        ("Each further token", markup.seconds(plan["itl_s"])),
        ("Output", markup.fixed(plan["tokens_per_s"]), "tokens per second"),
        ("Per hour", _usd(plan["usd_per_hour"]), plan["instance"] or "nobody is known to rent such a machine"),
        ("Per million tokens", million, "of output, always busy"),
    ]
    words = " ".join(planner.serve_words(plan, values["context"], kv, **engine))
    told.append(markup.note(f"A replica is started with: {words}"))
    return "".join([markup.summary(said), markup.definitions(figures)] + told)


def _engine(values: dict) -> dict:
    """Return what a reader set of the engine, for `planner.plan`."""
    engine = {"gpu_memory_utilization": int(values["memory"]) / 100}
    for name, field in (("max_num_seqs", "seqs"), ("max_num_batched_tokens", "batched")):
        if values[field]:
            engine[name] = values[field]
    if values["eager"] == "yes":
        engine["graphs"] = False
    if values["adapters"] != "0":
        many, rank = values["adapters"].split("x")
        engine.update({"lora_adapters": int(many), "lora_rank": int(rank)})
    return engine


def _usd(value: "float | None") -> str:
    return "no price" if value is None else markup.usd(value)


def _gpus(count: int, gpu: dict) -> str:
    return ("one " if count == 1 else markup.fixed(count) + " ") + gpu["title"]


def _planned(row: dict) -> list:
    return [
        markup.fixed(row["gpus"]),
        f"{markup.fixed(row['batch'])} of {markup.fixed(row['max_concurrent'])}",
        markup.seconds(row["ttft_s"]),
        markup.seconds(row["itl_s"]),
        markup.fixed(row["tokens_per_s"]),
        _usd(row["usd_per_hour"]),
        _usd(row["usd_per_million_output_tokens"]),
    ]


def _sources(plan: dict, share: int) -> str:
    said = (
        "Predicted from data sheets, with constants fitted on public measurements. A replica is "
        f"{share} GPU{'s' if share > 1 else ''}."
    )
    if plan["provider"]:
        said += f" On-demand price: {form.provider(plan['provider'])}, read {plan['price_read']}."
    doubtful = [name.replace("_", " ") for name in plan["unverified"]]
    return said + (f" No primary source confirms this GPU's {', '.join(doubtful)}." if doubtful else "")


def _memory(model: dict, gpu: dict, values: dict, kv: "str | None", split: dict, given: dict) -> str:
    """Draw what fills the memory of one GPU."""
    given = dict(given)
    given.update(split)
    parts = memory.plan(model, gpu, values["precision"], values["context"], kv, **given)
    engine = parts["activation_bytes"] + parts["lora_bytes"] + parts["graph_bytes"] + parts["other_bytes"]
    others = "activations, graphs, buffers" + (", adapters" if parts["lora_bytes"] else "")
    sizes = [("third", "weights", parts["weights_bytes"]), ("queue", others, engine)]
    sizes.append(("decode", "cache", parts["kv_bytes"]))
    whole = max(gpu["usable_bytes"], sum([bytes_ for _, _, bytes_ in sizes]))
    x = svg.linear(0, whole, 0, svg.WIDTH)
    drawn, start = [], 0
    for kind, _, bytes_ in sizes:
        drawn.append(svg.boxes([(x(start), 4, max(0, x(bytes_) - 2), 32)], kind))
        start += bytes_
    drawn.append(svg.boxes([(0.5, 0.5, x(gpu["usable_bytes"]) - 1, 39)], "nobody"))
    entries = [(kind, f"{words} {markup.size(bytes_)}") for kind, words, bytes_ in sizes]
    told = f"{', '.join([words for _, words in entries])}, of {markup.size(gpu['usable_bytes'])}."
    title = f"What fills the memory of one {gpu['title']}"
    entries.append(("nobody", f"all memory {markup.size(gpu['usable_bytes'])}"))
    return svg.drawing(40, title, told[0].upper() + told[1:], drawn) + markup.legend(entries)
