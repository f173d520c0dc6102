"""How fast a step can be: it takes as long as its arithmetic or its memory traffic, whichever is slower.

The model is the roofline of Williams, Waterman and Patterson (2009), applied to decoding as in kipply's "Transformer
inference arithmetic" (2022) and the JAX scaling book, chapter 7. Steps lose a share of the sheet's rates to what
`tables.assumption` calls compute_efficiency and memory_efficiency; both can be given to every function.
"""

from . import memory, tables

FULL = {"int4": "fp16"}
"""Weight-only formats multiply in 16 bits after they are unpacked."""


def rate_flop_per_s(gpu: "str | dict", precision: str) -> float:
    """Return a GPU's dense operations per second for weights of this precision.

    Raises ValueError if it multiplies no such numbers: a T4 has no bf16, an A100 no fp8.
    """
    g = tables.gpu(gpu)
    rates = g["rates"]
    multiplied = FULL.get(precision, precision)
    if multiplied not in rates:
        if precision not in memory.BITS:
            raise tables.unknown("precision", precision, list(memory.PRECISIONS))
        usable = [name for name in memory.PRECISIONS if FULL.get(name, name) in rates]
        raise ValueError(f"{g['name']} multiplies no {precision}; it has {', '.join(usable)}")
    return rates[multiplied]


def ridge_flop_per_byte(gpu: "str | dict", precision: str = "fp16") -> float:
    """Return the ridge point: the operations per byte of traffic above which arithmetic, not memory, is the limit."""
    return rate_flop_per_s(gpu, precision) / tables.gpu(gpu)["bandwidth_bytes_per_s"]


def decode_ceiling_per_s(model: "str | dict", gpu: "str | dict", precision: str = "fp16") -> float:
    """Return the tokens per second that one stream cannot exceed: each token reads every weight that it uses once.

    Bandwidth / bytes read; the cache and the launch of kernels only lower it.
    """
    return tables.gpu(gpu)["bandwidth_bytes_per_s"] / memory.weights_read_bytes(model, precision, 1)


def all_reduce_s(gpu: "str | dict", message_bytes: float, tensor_parallel: int) -> float:
    """Return the time of one all-reduce of so many bytes over so many GPUs of one machine.

    In a ring each GPU sends 2 (n - 1) / n of the message over its link (Patarasuk and Yuan 2009), at link_efficiency of
    its bandwidth in one direction, after all_reduce_s of start-up, both from `tables.assumption`. 0 for one GPU.
    """
    tables.not_negative("message_bytes", message_bytes)
    if tables.whole("tensor_parallel", tensor_parallel) == 1:
        return 0.0
    rate = tables.gpu(gpu)["link_bytes_per_s"] * tables.assumption("link_efficiency")["value"]
    sent = 2 * (tensor_parallel - 1) / tensor_parallel * message_bytes
    return tables.assumption("all_reduce_s")["value"] + sent / rate


def work(model: "str | dict", kv_precision: "str | None" = None) -> dict:
    """Return what a step costs per unit of what it processes.

    Keys: flop_per_token (2 per parameter of the layers that a token meets), flop_per_sample (2 per parameter of the head),
    flop_per_pair (4 x layers x heads x head dim: a token attending to one position), bytes_per_cached (a token's cache).
    """
    m = tables.model(model)
    counts = memory.parameters(m)
    head = counts["head"] or counts["embedding"]
    layers_only = counts["active"] - counts["embedding"] - counts["head"] - counts["norm"] - counts["bias"]
    dim = m["nope_head_dim"] + m["rope_head_dim"] + m["v_head_dim"] if m["kv_lora_rank"] else 2 * m["head_dim"]
    return {
        "flop_per_token": 2 * layers_only,
        "flop_per_sample": 2 * head,
        "flop_per_pair": 2 * m["layers"] * m["heads"] * dim,
        "bytes_per_cached": memory.kv_bytes_per_token(m, kv_precision or "fp16"),
    }


def _seen(m: dict, tokens: float) -> float:
    """Return how many of so many positions a layer reads on average: windowed layers read their window at most."""
    if not m["window"]:
        return tokens
    return tokens - m["window_layers"] / m["layers"] * max(0, tokens - m["window"])


def step_parts(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    kv_precision: "str | None" = None,
    tensor_parallel: int = 1,
    compute_efficiency: "float | None" = None,
    memory_efficiency: "float | None" = None,
):
    """Return a function of (tokens, samples, pairs, cached) that gives a step's parts.

    Its arguments are those that `simulator.simulate` gives; it returns compute_s, memory_s, link_s (all-reduces, 0 on one
    GPU), flop, and bytes of all GPUs together. `decode_step_s` and `prefill_s` say what is counted.
    """
    m = tables.model(model)
    if compute_efficiency is None:
        compute_efficiency = tables.assumption("compute_efficiency")["value"]
    if memory_efficiency is None:
        memory_efficiency = tables.assumption("memory_efficiency")["value"]
    tables.fraction("compute_efficiency", compute_efficiency)
    tables.fraction("memory_efficiency", memory_efficiency)
    unit = work(m, kv_precision)
    per_token, per_sample, per_pair = unit["flop_per_token"], unit["flop_per_sample"], unit["flop_per_pair"]
    per_cached = unit["bytes_per_cached"]
    share = memory.tensor_parallel_share(m, tensor_parallel)
    rate = rate_flop_per_s(gpu, precision) * compute_efficiency * tensor_parallel
    bandwidth = tables.gpu(gpu)["bandwidth_bytes_per_s"] * memory_efficiency
    dense = 0.0 if m["experts"] else memory.weights_read_bytes(m, precision, 1)

    def parts(tokens: int, samples: int, pairs: float, cached: float) -> tuple:
        flop = tokens * per_token + samples * per_sample + pairs * per_pair
        weights = dense or memory.weights_read_bytes(m, precision, tokens)
        cache = cached * per_cached
        # Two all-reduces a layer, after attention and after the MLP (Megatron-LM 1909.08053).
        link_s = 0.0
        if tensor_parallel > 1:
            link_s = 2 * m["layers"] * all_reduce_s(gpu, 2 * tokens * m["hidden"], tensor_parallel)
        return flop / rate, (weights / tensor_parallel + cache * share) / bandwidth, link_s, flop, weights + cache

    return parts


def step_time(model: "str | dict", gpu: "str | dict", precision: str, **settings):
    """Return a function of (tokens, samples, pairs, cached) that gives a step's seconds, for the simulator.

    `settings` are those of `step_parts`. A model's sliding window is not applied: all layers count as reading all.
    """
    parts = step_parts(model, gpu, precision, **settings)

    def seconds(tokens: int, samples: int, pairs: float, cached: float) -> float:
        compute_s, memory_s, link_s, _, _ = parts(tokens, samples, pairs, cached)
        return max(compute_s, memory_s) + link_s

    return seconds


def _step(parts, tokens: int, samples: int, pairs: float, cached: float) -> dict:
    compute_s, memory_s, link_s, flop, moved = parts(tokens, samples, pairs, cached)
    seconds = max(compute_s, memory_s) + link_s
    return {
        "seconds": seconds,
        "bound": "compute" if compute_s > memory_s else "memory",
        "compute_s": compute_s,
        "memory_s": memory_s,
        "link_s": link_s,
        "flop": flop,
        "bytes": moved,
        "tokens_per_s": tokens / seconds,
    }


def decode_step_s(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    batch: int,
    context_tokens: int,
    **settings,
) -> dict:
    """Return one decode step for `batch` sequences, each with `context_tokens` in the cache.

    `settings` are those of `step_parts`: kv_precision, tensor_parallel, compute_efficiency, memory_efficiency.
    Keys: seconds, bound ("compute" or "memory", whichever is slower), compute_s, memory_s, link_s (all-reduces, 0 on one
    GPU), flop, bytes (of all GPUs together), tokens_per_s (of the batch). Reads the weights once (of a mixture of
    experts, those expected to be picked) and the cache of each sequence; computes 2 FLOP per parameter and sequence, and
    4 x heads x head dim per layer, sequence and cached token. An untied input embedding is counted as read though only a
    few rows are (2 % of Llama-2-7B, 7 % of Qwen2.5-7B), and launching kernels takes no time: short steps are slower than
    this.
    """
    m = tables.model(model)
    tables.positive("batch", batch)
    tables.not_negative("context_tokens", context_tokens)
    cached = batch * _seen(m, context_tokens)
    return _step(step_parts(m, gpu, precision, **settings), batch, batch, cached, cached)


def prefill_s(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    tokens: int,
    **settings,
) -> dict:
    """Return the prefill of one prompt of so many tokens, in one pass; keys and `settings` as in `decode_step_s`.

    2 FLOP per parameter and token, except the head, which only the last token needs; causal attention adds
    2 x layers x heads x head dim x tokens squared. Reads the weights once and writes the prompt's cache.
    """
    m = tables.model(model)
    tables.positive("tokens", tokens)
    pairs = tokens * tokens / 2
    if m["window"] and tokens > m["window"]:
        outside = (tokens - m["window"]) * (tokens - m["window"]) / 2
        pairs -= m["window_layers"] / m["layers"] * outside
    return _step(step_parts(m, gpu, precision, **settings), tokens, 1, pairs, tokens)


def critical_batch(model: "str | dict", gpu: "str | dict", precision: str, context_tokens: int = 0) -> "int | None":
    """Return the knee: the smallest batch whose decode step is bound by compute at the sheet's rates, or None.

    With a long context each sequence brings more cache traffic than arithmetic, and no batch is large enough; so too
    beyond a million sequences, where the search ends.
    """

    def bound(batch: int) -> bool:
        step = decode_step_s(model, gpu, precision, batch, context_tokens, compute_efficiency=1, memory_efficiency=1)
        return step["bound"] == "compute"

    low, high = 0, 1
    while not bound(high):
        low, high = high, 2 * high
        if high > 1 << 20:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if bound(middle):
            high = middle
        else:
            low = middle
    return high
