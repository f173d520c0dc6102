"""What fills a GPU's memory: weights, cache, and what the engine needs besides."""

from . import tables

BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4.15625}
"""Bits per quantized weight. int4 is weight-only in groups of 128, each with a 16-bit scale and a 4-bit zero point:
4 + 20 / 128 (AWQ 2306.00978, GPTQ 2210.17323). fp8 and int8 keep one scale per row, which is not counted."""

PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "int4")
"""The keys of `BITS`, widest first."""

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
"""The matrices of a layer, attention's and then the MLP's."""

OVERHEADS: dict = {
    "logit_copies": {
        "value": 5,
        "unit": "fp32 copies of max_num_seqs x vocab",
        "why": "the profile run samples for every sequence: logits in 16 and 32 bits, scaled, sorted, their indices",
        "unverified": True,
    },
    "graph_bytes": {
        "value": 805306368,
        "unit": "bytes",
        "why": "CUDA graphs, which the engine estimates and sets aside before it sizes the cache; 0 in eager mode",
        "unverified": True,
    },
    "other_bytes": {
        "value": 483183820,
        "unit": "bytes",
        "why": "what is held outside PyTorch's allocator: cuBLAS, NCCL and attention workspaces",
        "unverified": True,
    },
}
"""What `plan` assumes. The engine measures these at start and prints "Available KV cache memory": believe its line."""


def _bits(precision: str) -> float:
    if precision not in BITS:
        raise tables.unknown("precision", precision, list(PRECISIONS))
    return BITS[precision]


def parameters(model: "str | dict") -> dict:
    """Return a decoder's parameter counts, counted from its configuration.

    Keys: embedding (vocab x hidden), head (the same again unless tied), attention (q, k, v, o and their biases), mlp
    (gate, up, down), norm (two a layer and a last one), total. Holds for Llama and Qwen2, which all known models are.
    """
    m = tables.model(model)
    layers, hidden, head_dim = m["layers"], m["hidden"], m["head_dim"]
    q, kv = m["heads"] * head_dim, m["kv_heads"] * head_dim
    counts = {
        "embedding": m["vocab"] * hidden,
        "head": 0 if m["tied_embeddings"] else m["vocab"] * hidden,
        "attention": layers * (2 * hidden * q + 2 * hidden * kv + (q + 2 * kv if m["qkv_bias"] else 0)),
        "mlp": layers * 3 * hidden * m["intermediate"],
        "norm": (2 * layers + 1) * hidden,
    }
    counts["total"] = sum(counts.values())
    return counts


def lora_parameters(model: "str | dict", rank: int, targets: tuple = ("q", "v")) -> int:
    """Return the trainable parameters of a LoRA of this rank on these projections: rank x (in + out) each, per layer.

    Targets are among `PROJECTIONS` (LoRA 2106.09685, section 4.2). Raises ValueError for another one.
    """
    m = tables.model(model)
    tables.positive("rank", rank)
    hidden, q, kv = m["hidden"], m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"]
    shapes = {
        "q": (hidden, q),
        "k": (hidden, kv),
        "v": (hidden, kv),
        "o": (q, hidden),
        "gate": (hidden, m["intermediate"]),
        "up": (hidden, m["intermediate"]),
        "down": (m["intermediate"], hidden),
    }
    total = 0
    for target in targets:
        if target not in shapes:
            raise tables.unknown("projection", target, list(PROJECTIONS))
        total += m["layers"] * rank * sum(shapes[target])
    return total


def weights_bytes(model: "str | dict", precision: str) -> int:
    """Return the bytes of a model's weights.

    Below 16 bits only the projections of the layers shrink: embedding, head, norms and biases stay in 16 bits, as in
    the checkpoints that engines load. Raises ValueError for an unknown model or precision.
    """
    counts, bits = parameters(model), _bits(precision)
    if bits >= 16:
        return int(counts["total"] * bits / 8)
    m = tables.model(model)
    biases = m["layers"] * (m["heads"] + 2 * m["kv_heads"]) * m["head_dim"] if m["qkv_bias"] else 0
    shrunk = counts["attention"] + counts["mlp"] - biases
    return int(shrunk * bits / 8) + 2 * (counts["total"] - shrunk)


def kv_bytes_per_token(model: "str | dict", precision: str = "fp16") -> int:
    """Return the cache bytes of one token: 2 (key and value) x layers x kv heads x head dim x bytes.

    `precision` is the cache's: fp32, fp16, bf16, fp8 or int8. Source: PagedAttention 2309.06180, section 3.
    """
    if precision == "int4":
        raise tables.unknown("precision of the cache", precision, ["fp32", "fp16", "bf16", "fp8", "int8"])
    m = tables.model(model)
    return int(2 * m["layers"] * m["kv_heads"] * m["head_dim"] * _bits(precision) / 8)


def kv_blocks(tokens: int, block_tokens: int = 16) -> int:
    """Return how many blocks hold so many tokens of one sequence: the last one may be partly empty."""
    tables.not_negative("tokens", tokens)
    tables.positive("block_tokens", block_tokens)
    return -(-tokens // block_tokens)


def plan(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    context_tokens: int,
    kv_precision: "str | None" = None,
    gpu_memory_utilization: float = 0.92,
    max_num_batched_tokens: int = 2048,
    max_num_seqs: int = 256,
    block_tokens: int = 16,
    graphs: bool = True,
    overheads: "dict | None" = None,
) -> dict:
    """Return how vLLM would divide a GPU's memory, and how many requests of `context_tokens` are then resident at once.

    Keys, in bytes: budget (usable x gpu_memory_utilization), weights, activation (the widest layer's intermediates for
    max_num_batched_tokens, and the sampler's copies of the logits), graph, other, kv (what is left for the cache, 0 at
    least); then blocks (one more is set aside as the null block), kv_tokens, max_concurrent (bounded by max_num_seqs),
    fits (at least one whole request fits). The order of subtraction is that of vLLM 0.32.0, `v1/worker/gpu_worker.py`,
    determine_available_memory; activation, graph and other are estimates from `OVERHEADS` (pass `overheads` to replace
    it, `graphs=False` for eager mode). The defaults are the server's on GPUs below 70 GiB and on the A100.
    `kv_precision` None means 16 bits.
    """
    m, g, assumed = tables.model(model), tables.gpu(gpu), overheads or OVERHEADS
    tables.positive("context_tokens", context_tokens)
    tables.positive("max_num_batched_tokens", max_num_batched_tokens)
    tables.positive("max_num_seqs", max_num_seqs)
    budget = int(g["usable_bytes"] * tables.fraction("gpu_memory_utilization", gpu_memory_utilization))
    layer = 2 * max_num_batched_tokens * (4 * m["hidden"] + 3 * m["intermediate"])
    logits = 4 * assumed["logit_copies"]["value"] * max_num_seqs * m["vocab"]
    parts = {
        "budget_bytes": budget,
        "weights_bytes": weights_bytes(m, precision),
        "activation_bytes": layer + logits,
        "graph_bytes": assumed["graph_bytes"]["value"] if graphs else 0,
        "other_bytes": assumed["other_bytes"]["value"],
    }
    block_bytes = block_tokens * kv_bytes_per_token(m, kv_precision or "fp16")
    left = budget - sum(size for name, size in parts.items() if name != "budget_bytes")
    blocks = max(0, left // block_bytes - 1)
    resident = blocks // kv_blocks(context_tokens, block_tokens)
    parts.update(
        {
            "kv_bytes": max(0, left),
            "blocks": blocks,
            "kv_tokens": blocks * block_tokens,
            "max_concurrent": min(resident, max_num_seqs),
            "fits": resident >= 1,
        }
    )
    return parts


def fits(model: "str | dict", gpu: "str | dict", precision: str, context_tokens: int, **settings: float) -> bool:
    """Return whether the weights and one request of `context_tokens` fit; `settings` are those of `plan`."""
    return plan(model, gpu, precision, context_tokens, **settings)["fits"]  # type: ignore[arg-type]


def max_concurrent(
    model: "str | dict", gpu: "str | dict", precision: str, context_tokens: int, **settings: float
) -> int:
    """Return how many requests of `context_tokens` are resident at once; `settings` are those of `plan`."""
    return plan(model, gpu, precision, context_tokens, **settings)["max_concurrent"]  # type: ignore[arg-type]
