"""From a model, a precision, a context and a number of users to GPUs, speed and dollars."""

from . import cost, memory, roofline, tables


def plan(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    context_tokens: int,
    users: int,
    output_tokens: "int | None" = None,
    kv_precision: "str | None" = None,
    tensor_parallel: int = 1,
) -> dict:
    """Return how many of a GPU serve `users` requests at once, how fast, and what that costs.

    Each request has `context_tokens` in the end, of which it generates the last `output_tokens` (None: a quarter, 256 at
    most). Keys:

    - model, gpu, precision, tensor_parallel (GPUs per replica), weights_bytes, kv_bytes_per_token;
    - fits (one replica holds the weights and a request), why ("" or what is missing), max_concurrent (requests that one
      replica holds), replicas, gpus, batch (requests on the fullest replica);
    - ttft_s: the prefill of one prompt on an idle replica, no queue; itl_s: a decode step of that batch in mid-answer;
      tokens_per_s: output of all replicas, their prefills counted: users x output / (output x itl + batch x prefill);
    - usd_per_hour (of all GPUs, at the lowest complete and verified on-demand price per GPU, or else the lowest one),
      usd_per_million_output_tokens (always busy), provider, price_read, unverified (what of GPU and price no primary
      source confirms). A GPU record of the caller's own has the price that it holds as usd_per_gpu_hour; without one
      these are None.

    Where it does not fit, replicas and gpus are 0 and what follows from them is None. Speeds are the roofline's with the
    efficiencies of `tables.assumption`. Raises ValueError for what cannot be: an unknown name, a precision that the GPU
    does not multiply, a context that the model was not made for, no users.
    """
    m, g = tables.model(model), tables.gpu(gpu)
    tables.whole("users", users)
    if tables.whole("context_tokens", context_tokens) < 2:
        raise ValueError("context_tokens must be at least 2: a prompt and an answer")
    if context_tokens > m["max_position"]:
        raise ValueError(f"{m['name']} was made for {m['max_position']} tokens of context, not {context_tokens}")
    if output_tokens is None:
        output_tokens = max(1, min(256, context_tokens // 4))
    if tables.whole("output_tokens", output_tokens) >= context_tokens:
        raise ValueError(f"output_tokens must be less than context_tokens, {context_tokens}, not {output_tokens}")
    roofline.rate_flop_per_s(g, precision)
    settings = {"kv_precision": kv_precision, "tensor_parallel": tensor_parallel}
    divided = memory.plan(m, g, precision, context_tokens, **settings)  # type: ignore[arg-type]
    at_once = divided["max_concurrent"]
    result = {
        "model": m["name"],
        "gpu": g["name"],
        "precision": precision,
        "tensor_parallel": tensor_parallel,
        "weights_bytes": memory.weights_bytes(m, precision),
        "kv_bytes_per_token": memory.kv_bytes_per_token(m, kv_precision or "fp16"),
        "fits": divided["fits"],
        "why": ""
        if divided["fits"]
        else _missing(divided, m, g, precision, context_tokens, kv_precision, tensor_parallel),
        "max_concurrent": at_once,
        "replicas": -(-users // at_once) if at_once else 0,
    }
    result["gpus"] = result["replicas"] * tensor_parallel
    result.update(_price(g))
    if not divided["fits"]:
        del result["usd_per_gpu_hour"]
        for key in ("batch", "ttft_s", "itl_s", "tokens_per_s", "usd_per_hour", "usd_per_million_output_tokens"):
            result[key] = None
        return result
    batch = -(-users // result["replicas"])
    prompt = context_tokens - output_tokens
    ttft_s = roofline.prefill_s(m, g, precision, prompt, **settings)["seconds"]
    itl_s = roofline.decode_step_s(m, g, precision, batch, prompt + output_tokens // 2, **settings)["seconds"]
    tokens_per_s = users * output_tokens / (output_tokens * itl_s + batch * ttft_s)
    result.update({"batch": batch, "ttft_s": ttft_s, "itl_s": itl_s, "tokens_per_s": tokens_per_s})
    each = result.pop("usd_per_gpu_hour")
    result["usd_per_hour"] = result["gpus"] * each if each else None
    million = cost.usd_per_million_tokens(result["usd_per_hour"], tokens_per_s) if each else None
    result["usd_per_million_output_tokens"] = million
    return result


def _price(g: dict) -> dict:
    if g["name"] not in tables.gpus() or "usd_per_gpu_hour" in g:  # a record of the caller's own
        own = {"usd_per_gpu_hour": g.get("usd_per_gpu_hour"), "provider": None, "price_read": None}
        own["unverified"] = sorted(g.get("unverified", []))
        return own
    found = tables.prices(g["name"])
    sound = [row for row in found if not row["partial"] and not row["unverified"]]
    row = (sound or found)[0]
    unverified = sorted(g["unverified"]) + (["price"] if row["unverified"] else [])
    return {
        "usd_per_gpu_hour": row["usd_per_gpu_hour"],
        "provider": row["provider"],
        "price_read": row["read"],
        "unverified": unverified,
    }


def _missing(divided: dict, m: dict, g: dict, precision: str, context_tokens: int, kv: "str | None", given: int) -> str:
    budget, weights = divided["budget_bytes"] / 2**30, divided["weights_bytes"] / 2**30
    if weights > budget:
        said = f"its weights take {weights:.1f} GiB, and a GPU has {budget:.1f} to give"
    else:
        said = f"beside {weights:.1f} GiB of weights, {budget:.1f} GiB leave too little cache for one such request"
    widest = given
    for more in (2, 4, 8):
        if more <= given:
            continue
        try:
            fits = memory.fits(m, g, precision, context_tokens, kv_precision=kv, tensor_parallel=more)  # type: ignore[arg-type]
        except ValueError:  # its heads cannot be divided so
            continue
        if fits:
            return f"{said}; over {more} GPUs it fits"
        widest = more
    return f"{said}; nor does it fit over {widest}" if widest > given else said


def compare(
    model: "str | dict", precision: str, context_tokens: int, users: int, planned: "dict | None" = None, **settings
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
        try:
            rows.append(plan(m, name, precision, context_tokens, users, **settings))
        except ValueError as error:
            if precision in tables.gpu(name)["rates"] or precision == "int4":
                raise
            rows.append({"model": m["name"], "gpu": name, "precision": precision, "fits": False, "why": str(error)})
    return rows
