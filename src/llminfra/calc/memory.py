"""What fills a GPU's memory: weights, cache, and what the engine needs besides."""

from . import lora, parallel, tables

BITS = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "fp8": 8,
    "int8": 8,
    "nvfp4": 4.5,
    "mxfp4": 4.25,
    "int4": 4.15625,
    "nf4": 4.126953125,
}
"""Bits per quantized weight. fp8 and int8 keep one scale per row, which is not counted. The others are weight-only here, with
scales by the group: nvfp4 an 8-bit one for 16 weights, mxfp4 an 8-bit one for 32 (OCP Microscaling Formats), int4 a 16-bit
scale and a 4-bit zero point for 128 (AWQ 2306.00978, GPTQ 2210.17323), nf4 an 8-bit one for 64 and a 32-bit one for 256 of
these (QLoRA 2305.14314, double quantization)."""

PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "nvfp4", "mxfp4", "int4", "nf4")
"""The keys of `BITS`, widest first."""


def _bits(precision: str) -> float:
    if precision not in BITS:
        raise tables.unknown("precision", precision, list(PRECISIONS))
    return BITS[precision]


def parameters(model: "str | dict") -> dict:
    """Return a decoder's parameter counts, counted from its configuration.

    Keys: vision (an encoder for images), embedding (vocab x hidden), head (the same again unless tied), attention (q, k, v, o; for latent attention their
    compressed forms; for linear attention its projections), bias (of q, k and v), mlp (gate, up, down; of all experts and the shared ones), expert (one
    expert's share of mlp, 0 in a dense model), router, norm (and the convolution and vectors of linear attention), total, and active: what
    one token is multiplied with or looked up in, which is total less the experts that its router leaves out.
    """
    m = tables.model(model)
    layers, hidden, heads = m["layers"], m["hidden"], m["heads"]
    if m["kv_lora_rank"]:
        query = heads * (m["nope_head_dim"] + m["rope_head_dim"])
        latent = m["kv_lora_rank"]
        from_hidden = query * hidden
        if m["q_lora_rank"]:
            from_hidden = m["q_lora_rank"] * (hidden + query)
        expanded = latent * heads * (m["nope_head_dim"] + m["v_head_dim"])
        attention = from_hidden + hidden * (latent + m["rope_head_dim"]) + expanded + heads * m["v_head_dim"] * hidden
        inner_norms = m["q_lora_rank"] + latent
        biases = 0
    else:
        q, kv = heads * m["head_dim"], m["kv_heads"] * m["head_dim"]
        attention = 2 * hidden * (q + kv) + (hidden * q if m["gated_attention"] else 0)
        inner_norms = m["qk_norm_parameters"]
        biases = q + 2 * kv if m["qkv_bias"] else 0
    linear, softmax = m["linear_layers"], layers - m["linear_layers"]
    keys, values = m["linear_key_heads"] * m["linear_head_dim"], m["linear_value_heads"] * m["linear_head_dim"]
    # Gated DeltaNet (2412.06464): queries and keys, values and their gate, the output; two scalars for each head of values.
    linear_attention = hidden * (2 * keys + 3 * values + 2 * m["linear_value_heads"])
    linear_norm = m["conv_kernel"] * (2 * keys + values) + 2 * m["linear_value_heads"] + m["linear_head_dim"]
    routed = layers - m["dense_layers"] if m["experts"] else 0
    expert = 3 * hidden * m["expert_intermediate"] if routed else 0
    dense = (layers - routed) * 3 * hidden * m["intermediate"]
    always = routed * 3 * hidden * m["shared_intermediate"]
    counts = {
        "vision": m["vision_parameters"],
        "embedding": m["vocab"] * hidden,
        "head": 0 if m["tied_embeddings"] else m["vocab"] * hidden,
        "attention": softmax * attention + linear * linear_attention,
        "bias": softmax * biases,
        "mlp": dense + always + routed * m["experts"] * expert,
        "router": routed * (hidden * m["experts"] + m["moe_extra_parameters"]),
        "norm": (m["norms_per_layer"] * layers + 1) * hidden + softmax * inner_norms + linear * linear_norm,
    }
    counts["total"] = sum(counts.values())
    counts["expert"] = expert
    counts["active"] = counts["total"] - routed * (m["experts"] - m["experts_per_token"]) * expert
    return counts


def _bytes(parameters: float, shrinking: float, precision: str) -> float:
    bits = _bits(precision)
    return parameters * bits / 8 if bits >= 16 else shrinking * bits / 8 + 2 * (parameters - shrinking)


def weights_bytes(model: "str | dict", precision: str) -> int:
    """Return the bytes of a model's weights.

    Below 16 bits only the projections of the layers shrink: embedding, head, router, norms, biases and an encoder for images
    stay in 16 bits, as in the checkpoints that engines load; in mxfp4 and with experts only these shrink, as in gpt-oss, and the engine pads
    their sides to multiples of 256 and 128 (vLLM 0.32.0, `fused_moe/oracle/mxfp4.py`). Raises ValueError for an unknown model or precision.
    """
    m, counts = tables.model(model), parameters(model)
    padding = 0.0
    if precision == "mxfp4" and m["experts"]:
        rounded = -(-m["hidden"] // 256) * 256 * -(-m["expert_intermediate"] // 128) * 128
        padding = counts["mlp"] * (rounded / (m["hidden"] * m["expert_intermediate"]) - 1) * BITS[precision] / 8
    return int(_bytes(counts["total"], _shrinking(counts, precision), precision) + padding)


def _shrinking(counts: dict, precision: str) -> float:
    """Return how many parameters a precision below 16 bits changes."""
    return counts["mlp"] + (0 if precision == "mxfp4" and counts["expert"] else counts["attention"])


def weights_read_bytes(model: "str | dict", precision: str, tokens: int) -> float:
    """Return the bytes of weights that a step over so many tokens is expected to read.

    All of them in a dense model, but for an input embedding that is not the head too: of it only the tokens' rows are read,
    which are not counted. In a mixture of experts each token picks experts_per_token of the experts of a layer;
    with even and independent picks, experts x (1 - (1 - k / experts) ^ tokens) of them are picked by at least one token.
    """
    m, counts = tables.model(model), parameters(model)
    left_out = 0.0
    looked_up = counts["vision"] + (0 if m["tied_embeddings"] else counts["embedding"])
    if m["experts"]:
        unread = m["experts"] * (1 - m["experts_per_token"] / m["experts"]) ** tables.positive("tokens", tokens)
        left_out = (m["layers"] - m["dense_layers"]) * unread * counts["expert"]
    return _bytes(counts["total"] - looked_up - left_out, _shrinking(counts, precision) - left_out, precision)


def kv_bytes_per_token(model: "str | dict", precision: str = "fp16") -> int:
    """Return the cache bytes of one token: 2 (key and value) x layers x kv heads x head dim x bytes.

    With multi-head latent attention one compressed vector a layer serves both: layers x (kv_lora_rank + rope_head_dim) x
    bytes (DeepSeek-V2 2405.04434, section 2.1). `precision` is the cache's: fp32, fp16, bf16, fp8 or int8. Layers with a
    sliding window count too: `kv_bytes` says where they stop growing. Layers of linear attention cache no tokens
    (`state_bytes`). Source: PagedAttention 2309.06180, section 3.
    """
    m = tables.model(model)
    return int((m["layers"] - m["linear_layers"]) * _layer_kv_bytes(m, precision))


def state_bytes(model: "str | dict") -> int:
    """Return what one layer of linear attention keeps of a sequence, however long it is; 0 for a model without such layers.

    The last conv_kernel - 1 inputs of its convolution in 16 bits, and for each head of values a square matrix in state_bits, as
    vLLM 0.32.0 has them (`layers/mamba/mamba_utils.py`, gated_delta_net_state_shape).
    """
    m = tables.model(model)
    if not m["linear_layers"]:
        return 0
    dim = m["linear_head_dim"]
    inputs = (m["conv_kernel"] - 1) * (2 * m["linear_key_heads"] + m["linear_value_heads"]) * dim
    return 2 * inputs + m["linear_value_heads"] * dim * dim * m["state_bits"] // 8


def _layer_kv_bytes(m: dict, precision: str) -> float:
    if precision not in ("fp32", "fp16", "bf16", "fp8", "int8"):
        raise tables.unknown("precision of the cache", precision, ["fp32", "fp16", "bf16", "fp8", "int8"])
    values = m["kv_lora_rank"] + m["rope_head_dim"] if m["kv_lora_rank"] else 2 * m["kv_heads"] * m["head_dim"]
    return values * _bits(precision) / 8


def kv_bytes(model: "str | dict", tokens: int, precision: str = "fp16") -> int:
    """Return the cache bytes of one sequence of so many tokens: a layer with a window keeps the window's at most, one of linear
    attention its state."""
    m = tables.model(model)
    tables.not_negative("tokens", tokens)
    kept = (m["layers"] - m["window_layers"] - m["linear_layers"]) * tokens
    kept += m["window_layers"] * (min(tokens, m["window"]) if m["window"] else tokens)
    return int(kept * _layer_kv_bytes(m, precision)) + m["linear_layers"] * state_bytes(m)


def kv_blocks(tokens: int, block_tokens: int = 16) -> int:
    """Return how many blocks hold so many tokens of one sequence: the last one may be partly empty."""
    tables.not_negative("tokens", tokens)
    tables.positive("block_tokens", block_tokens)
    return -(-tokens // block_tokens)


def server_defaults(gpu: "str | dict") -> tuple:
    """Return (max_num_seqs, max_num_batched_tokens) of vLLM 0.32.0's server on a GPU, where they are not given.

    `engine/arg_utils.py`, get_batch_defaults: 1,024 and 16,384 from 160 GiB on, 1,024 and 8,192 from 70 GiB on except on an
    A100, and otherwise 256 and 2,048.
    """
    g = tables.gpu(gpu)
    if g["usable_bytes"] >= 160 * 2**30:
        return 1024, 16384
    if g["usable_bytes"] >= 70 * 2**30 and "a100" not in g["title"].lower():
        return 1024, 8192
    return 256, 2048


def step_limits(
    gpu: "str | dict", context_tokens: int, max_num_seqs: "int | None", max_num_batched_tokens: "int | None"
) -> tuple:
    """Return (max_num_seqs, max_num_batched_tokens) of a server for requests of so many tokens, where None is not given.

    Neither default is more than the other setting can use (`engine/arg_utils.py`, _set_default_max_num_seqs_and_batched_tokens_args).
    """
    seqs, tokens = server_defaults(gpu)
    if max_num_seqs is not None:
        seqs = max_num_seqs
    tokens = min(seqs * context_tokens, tokens) if max_num_batched_tokens is None else max_num_batched_tokens
    return (min(seqs, tokens) if max_num_seqs is None else seqs), tokens


IN_FLIGHT = 2
"""Steps that an engine has under way on a GPU: with asynchronous scheduling the next one is planned while one runs."""


def hybrid_block_tokens(model: "str | dict", precision: str, tensor_parallel: int = 1, block_tokens: int = 16) -> int:
    """Return how many tokens a block holds: `block_tokens`, or with linear attention so many times as many that a state fits.

    Blocks of all layers come from one pool and have one size, so a block of tokens must be as large as a layer's state
    (vLLM 0.32.0, `platforms/interface.py`, _align_hybrid_block_size).
    """
    m = tables.model(model)
    page = int(block_tokens * _layer_kv_bytes(m, precision) * parallel.share(m, tensor_parallel))
    return block_tokens * max(1, -(-(state_bytes(m) // tensor_parallel) // page))


def cache_blocks(
    model: "str | dict", available_bytes: int, precision: str, block_tokens: int = 16, share: float = 1.0
) -> int:
    """Return how many blocks vLLM cuts `available_bytes` into; `share` is that of one GPU of several.

    A block holds block_tokens (of `hybrid_block_tokens`) of every layer of a group, or their states. Layers that see everything, with a
    window and of linear attention are put into groups of one size, the smallest kind's (the largest one's if that has not 1.5 times as
    many), padded where they do not come out even: all groups draw from one pool (`v1/core/kv_cache_utils.py`,
    _get_kv_cache_groups_uniform_page_size).
    """
    m = tables.model(model)
    return int(available_bytes // (int(block_tokens * _layer_kv_bytes(m, precision) * share) * _group_layers(m)))


def _group_layers(m: dict) -> int:
    """Return the layers of a group."""
    full = m["layers"] - m["window_layers"] - m["linear_layers"]
    kinds = [layers for layers in (full, m["window_layers"], m["linear_layers"]) if layers]
    return max(kinds) if max(kinds) < 1.5 * min(kinds) else min(kinds)


def group_windows(model: "str | dict") -> tuple:
    """Return the window in tokens of each group of layers that cache tokens, 0 where it sees everything: `windows` of the simulator."""
    m = tables.model(model)
    size = _group_layers(m)
    full, windowed = m["layers"] - m["window_layers"] - m["linear_layers"], m["window_layers"]
    return (0,) * -(-full // size) + (m["window"],) * -(-windowed // size)


def request_blocks(model: "str | dict", context_tokens: int, in_flight_tokens: int, block_tokens: int = 16) -> int:
    """Return how many blocks one request of `context_tokens` takes at most, over all groups of layers.

    A layer with a window keeps it, less one, and the tokens of the steps under way, in whole blocks and one more
    (SlidingWindowSpec.max_admission_blocks_per_request). Linear attention takes two blocks a group, the state and the one before
    it, as prefix caching has them, the default (MambaSpec.max_memory_usage_bytes).
    """
    m = tables.model(model)
    total = 2 * -(-m["linear_layers"] // _group_layers(m))
    for window in group_windows(model):
        if window:
            total += kv_blocks(min(context_tokens, window - 1 + in_flight_tokens), block_tokens) + 1
        else:
            total += kv_blocks(context_tokens, block_tokens)
    return total


def plan(
    model: "str | dict",
    gpu: "str | dict",
    precision: str,
    context_tokens: int,
    kv_precision: "str | None" = None,
    gpu_memory_utilization: float = 0.92,
    max_num_batched_tokens: "int | None" = None,
    max_num_seqs: "int | None" = None,
    block_tokens: int = 16,
    graphs: bool = True,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    lora_adapters: int = 0,
    lora_rank: int = 16,
) -> dict:
    """Return how vLLM would divide a GPU's memory, and how many requests of `context_tokens` are then resident at once.

    Keys, in bytes and per GPU: budget (usable x gpu_memory_utilization), weights, activation (the widest layer's
    intermediates for max_num_batched_tokens, and the sampler's copies of the logits), lora (`lora.values` in 16 bits for each of
    lora_adapters), graph, other, kv (what is left for
    the cache, 0 at least); then blocks (of vLLM, one less than it cuts, since one is set aside as the null block), concurrency
    (requests of `context_tokens` in the whole cache, as vLLM logs it), kv_tokens (that times context_tokens, as vLLM logs
    them), max_concurrent (bounded by max_num_seqs), fits (at least one whole request fits). The order of subtraction is that of vLLM 0.32.0,
    `v1/worker/gpu_worker.py`, determine_available_memory; activation, graph and other are estimates from
    `tables.assumption` (`graphs=False` for eager mode). Sequences and tokens of a step are those of `step_limits` where they are None.
    `kv_precision` None means 16 bits. With `tensor_parallel` GPUs each holds its share of weights and cache. With
    `pipeline_parallel` stages each has a part of the layers, the first the embedding too and the last the head and the sampler;
    the stage with the fewest blocks decides, and its GPU is described. Raises ValueError for a pipeline of a model with several kinds of
    layers, which is not modelled.
    """
    m, g = tables.model(model), tables.gpu(gpu)
    tables.positive("context_tokens", context_tokens)
    max_num_seqs, max_num_batched_tokens = step_limits(g, context_tokens, max_num_seqs, max_num_batched_tokens)
    tables.positive("max_num_batched_tokens", max_num_batched_tokens)
    tables.positive("max_num_seqs", max_num_seqs)
    tables.whole("block_tokens", block_tokens)
    share = parallel.share(m, tensor_parallel)
    block_tokens = hybrid_block_tokens(m, kv_precision or "fp16", tensor_parallel, block_tokens)
    budget = int(g["usable_bytes"] * tables.fraction("gpu_memory_utilization", gpu_memory_utilization))
    widest = max(m["intermediate"], m["experts_per_token"] * m["expert_intermediate"] + m["shared_intermediate"])
    layer = 2 * max_num_batched_tokens * (4 * m["hidden"] + 3 * widest // tensor_parallel)
    logits = 4 * tables.assumption("logit_copies")["value"] * max_num_seqs * m["vocab"]
    cache = kv_precision or "fp16"
    if pipeline_parallel > 1 and (m["window_layers"] or m["linear_layers"]):
        raise ValueError(f"{m['name']} has several kinds of layers: a pipeline of them is not modelled")
    communication = tables.assumption("communication_bytes")["value"] if tensor_parallel * pipeline_parallel > 1 else 0
    numbers = lora.values(m, lora_rank, tensor_parallel) if lora_adapters else 0
    total, counts = weights_bytes(m, precision), parameters(m)
    first = (counts["embedding"] + counts["vision"]) * max(2, _bits(precision) / 8)
    last = (counts["head"] or counts["embedding"]) * max(2, _bits(precision) / 8)
    body = total - first - (last if counts["head"] else 0)
    each = parallel.stages(m["layers"], pipeline_parallel)
    tightest = None
    for number in range(pipeline_parallel):
        part = each[number] / m["layers"]
        ends = (number == 0, number == pipeline_parallel - 1)
        held = total if pipeline_parallel == 1 else body * part + ends[0] * first + ends[1] * last
        parts = {
            "budget_bytes": budget,
            "weights_bytes": int(-(-held // tensor_parallel)),
            "activation_bytes": layer + (logits if ends[1] else 0),
            "lora_bytes": int(2 * lora_adapters * numbers * part),
            "graph_bytes": tables.assumption("graph_bytes")["value"] if graphs else 0,
            "other_bytes": tables.assumption("other_bytes")["value"] + communication,
        }
        left = budget - sum([parts[name] for name in parts if name != "budget_bytes"])
        blocks = cache_blocks(m, max(0, left), cache, block_tokens, share * part)
        if tightest is None or (blocks, left) < (tightest[0], tightest[1]):
            tightest = (blocks, left, parts)
    cut, left, parts = tightest  # type: ignore[misc]
    blocks = max(0, cut - 1)
    needed = request_blocks(m, context_tokens, IN_FLIGHT * max_num_batched_tokens, block_tokens)
    resident = blocks // needed
    parts.update(
        {
            "kv_bytes": max(0, left),
            "blocks": blocks,
            "concurrency": cut / needed,
            "kv_tokens": int(cut / needed * context_tokens),
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
