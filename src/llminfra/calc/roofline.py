"""How fast a step can be: each part of it takes as long as its arithmetic or its memory traffic, whichever is slower.

The model is the roofline of Williams, Waterman and Patterson (2009), applied to decoding as in kipply's "Transformer
inference arithmetic" (2022) and the JAX scaling book, chapter 7. The parts of a step follow one another, so their times add:
the start of each layer's kernels, the matrices, attention, and the exchange between GPUs. Real steps reach a share of the
sheet's rates, `tables.assumption` compute_efficiency and memory_efficiency, which are fitted on public measurements
(benchmarks/fit_speed.py); these and layer_launch_s can be given to every function.
"""

from . import memory, parallel, tables

FULL = {"nvfp4": "fp16", "mxfp4": "fp16", "int4": "fp16", "nf4": "fp16"}
"""Weight-only formats multiply in 16 bits after they are unpacked."""


def rate_flop_per_s(gpu: "str | dict", precision: str) -> float:
    """Return a GPU's dense operations per second for weights of this precision.

    fp8 weights on a GPU without fp8 arithmetic are unpacked and multiplied in 16 bits, as vLLM 0.32.0 does from capability 7.5
    on (`layers/quantization/fp8.py`). Raises ValueError if it multiplies no such numbers: a T4 has no bf16.
    """
    g = tables.gpu(gpu)
    rates = g["rates"]
    multiplied = FULL.get(precision, precision)
    if precision == "fp8" and "fp8" not in rates:
        multiplied = "fp16"
    if multiplied not in rates:
        if precision not in memory.BITS:
            raise tables.unknown("precision", precision, list(memory.PRECISIONS))
        usable = [name for name in memory.PRECISIONS if FULL.get(name, name) in rates or name == "fp8"]
        raise ValueError(f"{g['name']} multiplies no {precision}; it has {', '.join(usable)}")
    return rates[multiplied]


def ridge_flop_per_byte(gpu: "str | dict", precision: str = "fp16") -> float:
    """Return the ridge point: the operations per byte of traffic above which arithmetic, not memory, is the limit."""
    return rate_flop_per_s(gpu, precision) / tables.gpu(gpu)["bandwidth_bytes_per_s"]


def decode_ceiling_per_s(model: "str | dict", gpu: "str | dict", precision: str = "fp16") -> float:
    """Return the tokens per second that one stream cannot exceed: each token reads every weight that it uses once.

    Bandwidth / bytes read; the cache and the launch of kernels only lower it. Of an input embedding that is not the head too,
    only the token's row is read, which is not counted.
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
    flop_per_pair (4 x layers x heads x head dim: a token attending to one position), bytes_per_cached (a token's cache),
    bytes_per_sequence (the states of linear attention, read and written in every step).
    """
    m = tables.model(model)
    counts = memory.parameters(m)
    head = counts["head"] or counts["embedding"]
    layers_only = (
        counts["active"] - counts["embedding"] - counts["head"] - counts["norm"] - counts["bias"] - counts["vision"]
    )
    dim = m["nope_head_dim"] + m["rope_head_dim"] + m["v_head_dim"] if m["kv_lora_rank"] else 2 * m["head_dim"]
    return {
        "flop_per_token": 2 * layers_only,
        "flop_per_sample": 2 * head,
        "flop_per_pair": 2 * (m["layers"] - m["linear_layers"]) * m["heads"] * dim,
        "bytes_per_cached": memory.kv_bytes_per_token(m, kv_precision or "fp16"),
        "bytes_per_sequence": 2 * m["linear_layers"] * memory.state_bytes(m),
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
    layer_launch_s: "float | None" = None,
):
    """Return a function of (tokens, samples, pairs, cached) that gives a step's parts.

    Its arguments are those that `simulator.simulate` gives. It returns, in seconds, (launch, linear_compute, linear_memory,
    head_compute, head_memory, attention_compute, attention_memory, link), and then flop and bytes of all GPUs together: of each
    part that has two times the longer one counts. `decode_step_s` and `prefill_s` say what is in them.
    """
    m = tables.model(model)
    if compute_efficiency is None:
        compute_efficiency = tables.assumption("compute_efficiency")["value"]
    if memory_efficiency is None:
        memory_efficiency = tables.assumption("memory_efficiency")["value"]
    if layer_launch_s is None:
        layer_launch_s = tables.assumption("layer_launch_s")["value"]
    tables.fraction("compute_efficiency", compute_efficiency)
    tables.fraction("memory_efficiency", memory_efficiency)
    tables.not_negative("layer_launch_s", layer_launch_s)
    unit = work(m, kv_precision)
    per_token, per_sample, per_pair = unit["flop_per_token"], unit["flop_per_sample"], unit["flop_per_pair"]
    per_cached, per_sequence = unit["bytes_per_cached"], unit["bytes_per_sequence"]
    share = parallel.share(m, tensor_parallel)
    rate = rate_flop_per_s(gpu, precision) * compute_efficiency * tensor_parallel
    bandwidth = tables.gpu(gpu)["bandwidth_bytes_per_s"] * memory_efficiency
    head_bytes = max(2, memory.BITS[precision] / 8) * per_sample / 2
    dense = 0.0 if m["experts"] else memory.weights_read_bytes(m, precision, 1) - head_bytes
    launch_s = m["layers"] * layer_launch_s
    head_memory_s = head_bytes / tensor_parallel / bandwidth

    def parts(tokens: int, samples: int, pairs: float, cached: float) -> tuple:
        weights = dense or memory.weights_read_bytes(m, precision, tokens) - head_bytes
        cache, states = cached * per_cached, samples * per_sequence
        # Two all-reduces a layer, after attention and after the MLP (Megatron-LM 1909.08053).
        link_s = 0.0
        if tensor_parallel > 1:
            link_s = 2 * m["layers"] * all_reduce_s(gpu, 2 * tokens * m["hidden"], tensor_parallel)
        return (
            launch_s,
            tokens * per_token / rate,
            weights / tensor_parallel / bandwidth,
            samples * per_sample / rate,
            head_memory_s,
            pairs * per_pair / rate,
            (cache * share + states / tensor_parallel) / bandwidth,
            link_s,
            tokens * per_token + samples * per_sample + pairs * per_pair,
            weights + head_bytes + cache + states,
        )

    return parts


def step_time(model: "str | dict", gpu: "str | dict", precision: str, **settings):
    """Return a function of (tokens, samples, pairs, cached) that gives a step's seconds, for the simulator.

    `settings` are those of `step_parts`. A model's sliding window is not applied: all layers count as reading all.
    """
    parts = step_parts(model, gpu, precision, **settings)

    def seconds(tokens: int, samples: int, pairs: float, cached: float) -> float:
        launch, linear_c, linear_m, head_c, head_m, attention_c, attention_m, link, _, _ = parts(
            tokens, samples, pairs, cached
        )
        return launch + max(linear_c, linear_m) + max(head_c, head_m) + max(attention_c, attention_m) + link

    return seconds


def _step(parts, tokens: int, samples: int, pairs: float, cached: float) -> dict:
    launch, linear_c, linear_m, head_c, head_m, attention_c, attention_m, link, flop, moved = parts(
        tokens, samples, pairs, cached
    )
    both = ((linear_c, linear_m), (head_c, head_m), (attention_c, attention_m))
    kinds = {
        "compute": sum([compute for compute, traffic in both if compute > traffic]),
        "memory": sum([traffic for compute, traffic in both if compute <= traffic]),
        "launch": launch,
        "link": link,
    }
    seconds = launch + max(linear_c, linear_m) + max(head_c, head_m) + max(attention_c, attention_m) + link
    return {
        "seconds": seconds,
        "bound": max(("memory", "compute", "launch", "link"), key=lambda kind: kinds[kind]),
        "launch_s": launch,
        "linear_s": max(linear_c, linear_m),
        "linear_bound": "compute" if linear_c > linear_m else "memory",
        "head_s": max(head_c, head_m),
        "attention_s": max(attention_c, attention_m),
        "link_s": link,
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

    `settings` are those of `step_parts`: kv_precision, tensor_parallel, compute_efficiency, memory_efficiency, layer_launch_s.
    Keys: seconds, and its parts launch_s (starting the kernels of each layer), linear_s (the matrices of the layers: 2 FLOP
    per parameter and sequence, the weights read once; of a mixture of experts, those expected to be picked), head_s (the
    matrix that scores the vocabulary), attention_s (4 x heads x head dim FLOP per layer, sequence and cached token, the cache
    of each sequence read), link_s (all-reduces, 0 on one GPU); bound ("memory", "compute", "launch" or "link": what the parts
    that take longest wait for), linear_bound (what the matrices of the layers wait for), flop, bytes (of all GPUs together),
    tokens_per_s (of the batch).
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


def ttft_s(
    model: "str | dict", gpu: "str | dict", precision: str, tokens: int, request_s: "float | None" = None, **settings
) -> float:
    """Return the time to the first token of a prompt that is alone: its prefill, and `request_s` for the way to it and back.

    request_s (HTTP, tokenizer, scheduler) is `tables.assumption`'s unless it is given; `settings` are those of `step_parts`.
    """
    if request_s is None:
        request_s = tables.assumption("request_s")["value"]
    return tables.not_negative("request_s", request_s) + prefill_s(model, gpu, precision, tokens, **settings)["seconds"]


def critical_batch(model: "str | dict", gpu: "str | dict", precision: str) -> "int | None":
    """Return the knee: the smallest batch at which arithmetic bounds the matrices of the layers, at the sheet's rates, or None.

    Attention has no knee: each sequence brings its own cache, and a larger batch reads more of them. None for a mixture of
    experts that is still reading more of its experts at a million sequences.
    """
    parts = step_parts(model, gpu, precision, compute_efficiency=1, memory_efficiency=1, layer_launch_s=0)

    def bound(batch: int) -> bool:
        found = parts(batch, batch, 0, 0)
        return found[1] > found[2]

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
