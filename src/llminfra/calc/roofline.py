"""How fast a step can be: it takes as long as its arithmetic or its memory traffic, whichever is slower.

The model is the roofline of Williams, Waterman and Patterson (2009), applied to decoding as in kipply's "Transformer
inference arithmetic" (2022) and the JAX scaling book, chapter 7.
"""

from . import memory, tables

COMPUTE_EFFICIENCY = 0.8
"""Share of the dense peak that large matmuls reach: 795 of 989 TFLOP/s on an H100, 271 of 312 on an A100
(stas00/ml-engineering, maximum achievable matmul FLOPS). Small or odd shapes reach less."""

MEMORY_EFFICIENCY = 0.8
"""Share of the sheet's bandwidth that reading weights reaches. An assumption of the course, until a GPU's own
recording replaces it: no primary source was found."""

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
    """Return the tokens per second that one stream cannot exceed: each token reads every weight once.

    Bandwidth / weight bytes; the cache and the launch of kernels only lower it.
    """
    return tables.gpu(gpu)["bandwidth_bytes_per_s"] / memory.weights_bytes(model, precision)


def _step(
    gpu: "str | dict", precision: str, flop: float, moved: float, tokens: int, compute: float, bandwidth: float
) -> dict:
    tables.fraction("compute_efficiency", compute)
    tables.fraction("memory_efficiency", bandwidth)
    compute_s = flop / (rate_flop_per_s(gpu, precision) * compute)
    memory_s = moved / (tables.gpu(gpu)["bandwidth_bytes_per_s"] * bandwidth)
    seconds = max(compute_s, memory_s)
    return {
        "seconds": seconds,
        "bound": "compute" if compute_s > memory_s else "memory",
        "compute_s": compute_s,
        "memory_s": memory_s,
        "flop": flop,
        "bytes": moved,
        "tokens_per_s": tokens / seconds,
    }


def _matmul_parameters(model: "str | dict") -> int:
    """Return the parameters that a token is multiplied with: all but the looked-up embedding, and the head if tied."""
    counts = memory.parameters(model)
    return counts["attention"] + counts["mlp"] + (counts["head"] or counts["embedding"])


def decode_step_s(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    batch: int,
    context_tokens: int,
    kv_precision: "str | None" = None,
    compute_efficiency: float = COMPUTE_EFFICIENCY,
    memory_efficiency: float = MEMORY_EFFICIENCY,
) -> dict:
    """Return one decode step for `batch` sequences, each with `context_tokens` in the cache.

    Keys: seconds, bound ("compute" or "memory"), compute_s, memory_s, flop, bytes, tokens_per_s (of the batch). Reads
    all weights once and the cache of each sequence; computes 2 FLOP per parameter and sequence, and 4 x heads x
    head dim per layer, sequence and cached token. An untied input embedding is counted as read though only a few rows
    are (2 % of Llama-2-7B, 7 % of Qwen2.5-7B), and launching kernels takes no time: short steps are slower than this.
    """
    m = tables.model(model)
    tables.positive("batch", batch)
    tables.not_negative("context_tokens", context_tokens)
    attention = 4 * m["layers"] * m["heads"] * m["head_dim"] * context_tokens
    flop = batch * (2 * _matmul_parameters(m) + attention)
    cache = batch * context_tokens * memory.kv_bytes_per_token(m, kv_precision or "fp16")
    moved = memory.weights_bytes(m, precision) + cache
    return _step(gpu, precision, flop, moved, batch, compute_efficiency, memory_efficiency)


def prefill_s(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    tokens: int,
    kv_precision: "str | None" = None,
    compute_efficiency: float = COMPUTE_EFFICIENCY,
    memory_efficiency: float = MEMORY_EFFICIENCY,
) -> dict:
    """Return the prefill of one prompt of so many tokens, in one pass; keys as in `decode_step_s`.

    2 FLOP per parameter and token, except the head, which only the last token needs; causal attention adds
    2 x layers x heads x head dim x tokens squared. Reads the weights once and writes the prompt's cache.
    """
    m = tables.model(model)
    tables.positive("tokens", tokens)
    counts = memory.parameters(m)
    attention = 2 * m["layers"] * m["heads"] * m["head_dim"] * tokens * tokens
    flop = 2 * (counts["attention"] + counts["mlp"]) * tokens + 2 * (counts["head"] or counts["embedding"]) + attention
    moved = memory.weights_bytes(m, precision) + tokens * memory.kv_bytes_per_token(m, kv_precision or "fp16")
    return _step(gpu, precision, flop, moved, tokens, compute_efficiency, memory_efficiency)


def critical_batch(model: "str | dict", gpu: "str | dict", precision: str, context_tokens: int = 0) -> "int | None":
    """Return the smallest batch whose decode step is bound by compute at the sheet's rates, or None if none is.

    With a long context each sequence brings more cache traffic than arithmetic, and no batch is large enough.
    """
    one = decode_step_s(model, gpu, precision, 1, context_tokens, compute_efficiency=1.0, memory_efficiency=1.0)
    weights_s = memory.weights_bytes(model, precision) / tables.gpu(gpu)["bandwidth_bytes_per_s"]
    cache_s = one["memory_s"] - weights_s
    if one["compute_s"] <= cache_s:
        return None
    return int(weights_s / (one["compute_s"] - cache_s)) + 1
