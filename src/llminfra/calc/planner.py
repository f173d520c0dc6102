"""From a model, a precision, a context and a number of users to GPUs, speed and dollars."""

from . import cost, memory, names, refusals, roofline, tables

OF_A_FITTING_PLAN = (
    "batch",
    "ttft_s",
    "ttft_burst_s",
    "itl_s",
    "tokens_per_s",
    "usd_per_hour",
    "usd_per_million_output_tokens",
)
"""Keys of `plan` that are None where it does not fit."""


def precision_of(model: "str | dict", gpu: "str | dict", precision: "str | None") -> str:
    """Return the precision that is meant: as people write it (`names.precision`), or if none is given what the model's name says
    (Qwen3-8B-AWQ), or else 16 bits, bf16 where the GPU has it. Raises ValueError for an unknown one."""
    if precision is None:
        said = "" if isinstance(model, dict) else names.quantized(model)[1]
        return said or ("bf16" if tables.gpu(gpu)["bf16"] else "fp16")
    found = names.precision(precision, memory.PRECISIONS)
    if found is None:
        raise tables.unknown("precision", precision, list(memory.PRECISIONS))
    return found


def plan(
    model: "str | dict",
    gpu: "str | dict",
    precision: "str | None",
    context_tokens: int,
    users: int,
    output_tokens: "int | None" = None,
    kv_precision: "str | None" = None,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    **engine,
) -> dict:
    """Return how many of a GPU serve `users` requests at once, how fast, and what that costs.

    Each request has `context_tokens` in the end, of which it generates the last `output_tokens` (None: a quarter, 256 at
    most). `precision` as for `precision_of`. `engine` are further settings of `memory.plan`: gpu_memory_utilization,
    max_num_seqs, max_num_batched_tokens, graphs, lora_adapters, lora_rank. Keys:

    - model, gpu, precision, tensor_parallel, pipeline_parallel (their product is the GPUs of a replica), weights_bytes,
      kv_bytes_per_token;
    - fits (one replica holds the weights and a request), why ("" or what is missing), max_concurrent (requests that one
      replica holds), replicas, gpus, batch (requests on the fullest replica);
    - ttft_s: to the first token of a prompt that is alone on an idle replica; ttft_burst_s: to the last first token if all users
      of a replica ask at once, so that their prompts are read one after the other; itl_s: a decode step of that batch in
      mid-answer; tokens_per_s: output of all replicas, their prefills counted: users x output / (output x itl + batch x prefill);
    - usd_per_hour (of the machines that hold the replicas, each within one machine, at the lowest complete and verified
      on-demand price, or else the lowest one; a serverless worker's only where no machine or pod has just so many GPUs), usd_per_million_output_tokens (always busy), provider, instance (how many of
      which machine), price_read, unverified (what of GPU and price no primary source confirms). A GPU record of the caller's own has the price that it holds as usd_per_gpu_hour; without one
      these are None.

    Where it does not fit, replicas and gpus are 0 and what follows from them is None. Speeds are the roofline's with the
    efficiencies of `tables.assumption`; adapters are counted in memory, not in time. In a pipeline a token passes one stage after
    the other, so it takes as long as on one GPU with all layers, while each stage works on a part of the batch of its own; that is
    arithmetic without a measurement behind it, and what travels between stages is not counted. Raises ValueError for what cannot be:
    an unknown name, no users, and what the engine refuses, in its words (`refusals`).
    """
    precision = precision_of(model, gpu, precision)
    m, g = tables.model(model), tables.gpu(gpu)
    tables.whole("users", users)
    if tables.whole("context_tokens", context_tokens) < 2:
        raise ValueError("context_tokens must be at least 2: a prompt and an answer")
    if output_tokens is None:
        output_tokens = max(1, min(256, context_tokens // 4))
    if tables.whole("output_tokens", output_tokens) >= context_tokens:
        raise ValueError(f"output_tokens must be less than context_tokens, {context_tokens}, not {output_tokens}")
    tables.whole("tensor_parallel", tensor_parallel)
    tables.whole("pipeline_parallel", pipeline_parallel)
    limits = memory.step_limits(g, context_tokens, engine.get("max_num_seqs"), engine.get("max_num_batched_tokens"))
    refused = refusals.anywhere(m, context_tokens, precision, tensor_parallel, **engine)
    refused = refused or refusals.step(*limits) or refusals.on(g, precision, kv_precision)
    if refused:
        raise ValueError(f"the engine refuses: {refused}")
    roofline.rate_flop_per_s(g, precision)
    settings = {"kv_precision": kv_precision, "tensor_parallel": tensor_parallel}
    divided = memory.plan(m, g, precision, context_tokens, pipeline_parallel=pipeline_parallel, **engine, **settings)  # type: ignore[arg-type]
    at_once = divided["max_concurrent"]
    result = {
        "model": m["name"],
        "gpu": g["name"],
        "precision": precision,
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "weights_bytes": memory.weights_bytes(m, precision),
        "kv_bytes_per_token": memory.kv_bytes_per_token(m, kv_precision or "fp16"),
        "fits": divided["fits"],
        "why": ""
        if divided["fits"]
        else _missing(divided, m, g, (precision, context_tokens), settings, pipeline_parallel, engine),
        "max_concurrent": at_once,
        "replicas": -(-users // at_once) if at_once else 0,
    }
    size = tensor_parallel * pipeline_parallel
    result["gpus"] = result["replicas"] * size
    result.update(_rent(g, result["replicas"], size))
    if not divided["fits"]:
        for key in OF_A_FITTING_PLAN:
            result[key] = None
        return result
    batch = -(-users // result["replicas"])
    prompt = context_tokens - output_tokens
    ttft_s = roofline.ttft_s(m, g, precision, prompt, **settings)  # type: ignore[arg-type]
    prefill_s = roofline.prefill_s(m, g, precision, prompt, **settings)["seconds"]
    share = -(-batch // pipeline_parallel)  # of the batch that one stage works on
    itl_s = roofline.decode_step_s(m, g, precision, share, prompt + output_tokens // 2, **settings)["seconds"]
    tokens_per_s = users * output_tokens / (output_tokens * itl_s + batch * prefill_s / pipeline_parallel)
    burst_s = ttft_s + (batch - 1) * prefill_s / pipeline_parallel
    result.update({"batch": batch, "ttft_s": ttft_s, "ttft_burst_s": burst_s, "itl_s": itl_s})
    result["tokens_per_s"] = tokens_per_s
    hourly = result["usd_per_hour"]
    million = cost.usd_per_million_tokens(hourly, tokens_per_s) if hourly else None
    result["usd_per_million_output_tokens"] = million
    return result


def serve_words(
    plan: dict,
    context_tokens: int,
    kv_precision: "str | None" = None,
    checkpoint: "str | None" = None,
    **engine,
) -> list:
    """Return the command that starts a replica of a plan, word by word: `vllm serve` and its arguments.

    `checkpoint` is the published id of the weights; without one it is the model's, which a quantized plan has to replace by one
    of its kind. `engine` as for `plan`.
    """
    words = ["vllm", "serve", checkpoint or tables.model(plan["model"])["id"], "--max-model-len", str(context_tokens)]
    if plan["precision"] in ("fp16", "bf16", "fp32"):
        words += ["--dtype", {"fp16": "half", "bf16": "bfloat16", "fp32": "float32"}[plan["precision"]]]
    elif plan["precision"] == "fp8":
        words += ["--quantization", "fp8"]
    if plan["tensor_parallel"] > 1:
        words += ["--tensor-parallel-size", str(plan["tensor_parallel"])]
    if plan["pipeline_parallel"] > 1:
        words += ["--pipeline-parallel-size", str(plan["pipeline_parallel"])]
    if kv_precision == "fp8":
        words += ["--kv-cache-dtype", "fp8"]
    if engine.get("lora_adapters"):
        words += ["--enable-lora", "--max-loras", str(engine["lora_adapters"])]
        words += ["--max-lora-rank", str(engine.get("lora_rank", 16))]
    for name in ("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"):
        if engine.get(name) is not None:
            words += ["--" + name.replace("_", "-"), str(engine[name])]
    return words + ([] if engine.get("graphs", True) else ["--enforce-eager"])


def _rent(g: dict, replicas: int, size: int) -> dict:
    """Return what it costs by the hour to rent `replicas` groups of `size` GPUs, each group within one machine.

    Machines are rented in the sizes that a provider has, and idle GPUs of one are paid too. A replica runs all the time, so
    serverless workers count only where no machine or pod has just so many; then complete and verified prices go first. Keys: usd_per_hour (None where nobody is known to rent such a machine), provider, instance, price_read, unverified.
    """
    if g["name"] not in tables.gpus() or "usd_per_gpu_hour" in g:  # a record of the caller's own
        each = g.get("usd_per_gpu_hour")
        own = {"usd_per_hour": replicas * size * each if each else None, "provider": None, "instance": None}
        own.update({"price_read": None, "unverified": sorted(g.get("unverified", []))})
        return own
    offers = []
    for row in tables.prices(g["name"]):
        for held in row["sizes"]:
            if held >= size:
                machines = -(-max(1, replicas) // (held // size))
                doubtful = bool(row["partial"] or row["unverified"])
                usd = machines * held * row["usd_per_gpu_hour"]
                serverless = row["kind"] == "serverless"
                offers.append((serverless, doubtful, usd, row["provider"], held, machines, row))
    if not offers:
        nobody: dict = {"usd_per_hour": None, "provider": None, "instance": None, "price_read": None}
        nobody["unverified"] = sorted(g["unverified"])
        return nobody
    if any([not offer[0] and offer[4] * offer[5] == max(1, replicas) * size for offer in offers]):
        offers = [offer for offer in offers if not offer[0]]
    _, doubtful, usd, provider, held, machines, row = min(offers, key=lambda offer: offer[1:6])
    return {
        "usd_per_hour": usd,
        "provider": provider,
        "instance": f"{machines} x {row['instance']}" + (f" of {held} GPUs" if held > 1 else ""),
        "price_read": row["read"],
        "unverified": sorted(g["unverified"]) + (["price"] if doubtful else []),
    }


def _missing(divided: dict, m: dict, g: dict, asked: tuple, settings: dict, stages: int, engine: dict) -> str:
    """Return what a GPU lacks, and over how many of one machine the replica would fit: in tensor parallel, or else as stages."""
    budget, weights = divided["budget_bytes"] / 2**30, divided["weights_bytes"] / 2**30
    if weights > budget:
        said = f"its weights take {weights:.1f} GiB, and a GPU has {budget:.1f} to give"
    else:
        said = f"beside {weights:.1f} GiB of weights, {budget:.1f} GiB leave too little cache for one such request"
    given = settings["tensor_parallel"] * stages
    widest = given
    for more in (2, 4, 8):
        if more <= given:
            continue
        for name, tensor, pipeline in (("", more, 1), (" as stages of a pipeline", 1, more)):
            wanted = dict(settings)
            wanted.update(engine)
            wanted.update({"tensor_parallel": tensor, "pipeline_parallel": pipeline})
            try:
                if refusals.anywhere(m, asked[1], asked[0], tensor, **engine):
                    continue
                fits = memory.fits(m, g, asked[0], asked[1], **wanted)
            except ValueError:  # its heads or its layers cannot be divided so
                continue
            if fits:
                return f"{said}; over {more} GPUs{name} it fits"
            widest = more
    return f"{said}; nor does it fit over {widest}" if widest > given else said


def compare(
    model: "str | dict",
    precision: "str | None",
    context_tokens: int,
    users: int,
    planned: "dict | None" = None,
    **settings,
) -> list:
    """Return `plan` for every known GPU, from the smallest; where the precision is not multiplied, `why` says so.

    `planned` is a plan made already, with the same arguments: it stands for its GPU.
    """
    m = tables.model(model)
    rows = []
    for name in tables.gpus():
        if planned is not None and planned["gpu"] == name:
            rows.append(planned)
            continue
        kind = precision_of(model, name, precision)
        try:
            rows.append(plan(m, name, kind, context_tokens, users, **settings))
        except ValueError as error:
            alone = refusals.on(name, kind, settings.get("kv_precision"))
            limits = [settings.get(key) for key in ("max_num_seqs", "max_num_batched_tokens")]
            alone = alone or refusals.step(*memory.step_limits(name, context_tokens, *limits))
            if not alone and (kind in tables.gpu(name)["rates"] or kind in roofline.FULL):
                raise
            row = {"model": m["name"], "gpu": name, "precision": kind, "fits": False, "why": str(error)}
            for key in OF_A_FITTING_PLAN:
                row[key] = None
            row.update({"replicas": 0, "gpus": 0, "unverified": tables.gpu(name)["unverified"]})
            rows.append(row)
    return rows
