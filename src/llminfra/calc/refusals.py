"""What vLLM 0.32.0 refuses to start, in its own words: tests/test_refusals.py holds each sentence against the engine's own checks."""

from . import tables

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which the engine reserves adapters (`config/lora.py`, MaxLoRARanks)."""


def anywhere(
    model: "str | dict",
    context_tokens: int,
    precision: str,
    tensor_parallel: int = 1,
    lora_adapters: int = 0,
    lora_rank: int = 16,
    **others,
) -> str:
    """Return why the engine refuses such a start on any GPU, or "": its sentence, and what to do. `others` are not looked at."""
    m = tables.model(model)
    if context_tokens > m["max_position"]:
        return (
            f"User-specified max_model_len ({context_tokens}) is greater than the derived max_model_len "
            f"(max_position_embeddings={m['max_position']}); beyond it, answers are wrong unless the model's rotary embedding is "
            "scaled, and the engine starts only with VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
        )
    if m["heads"] % tensor_parallel:
        return f"Total number of attention heads ({m['heads']}) must be divisible by tensor parallel size ({tensor_parallel})."
    if lora_adapters and lora_rank not in LORA_RANKS:
        ranks = [str(rank) for rank in LORA_RANKS]
        return f"max_lora_rank: Input should be {', '.join(ranks[:-1])} or {ranks[-1]}"
    if precision == "nf4":
        return "Unknown quantization method: bitsandbytes. (This version dropped it; awq, gptq and others are left.)"
    return ""


def step(max_num_seqs: int, max_num_batched_tokens: int) -> str:
    """Return why the engine refuses these limits of a step (`memory.step_limits`), or ""."""
    if max_num_batched_tokens >= max_num_seqs:
        return ""
    return (
        f"max_num_batched_tokens ({max_num_batched_tokens}) must be greater than or equal to "
        f"max_num_seqs ({max_num_seqs})."
    )


def on(gpu: "str | dict", precision: str, kv_precision: "str | None" = None) -> str:
    """Return why the engine refuses these numbers on a GPU, or "": its sentence, and what to do."""
    g = tables.gpu(gpu)
    if g.get("unsupported"):
        return g["unsupported"]
    capability = float(g["capability"])
    if precision == "bf16" and capability < 8:
        return (
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
            f"{g['name']} has {g['capability']}: use fp16"
        )
    if precision == "mxfp4" and capability < 8:
        return (
            "The quantization method gpt_oss_mxfp4 is not supported for the current GPU. Minimum capability: 80. "
            f"Current capability: {g['capability'].replace('.', '')}."
        )
    if kv_precision == "fp8" and capability < 8:
        return (
            f"FP8 KV cache is not supported by the Triton attention backend on {g['name']} (compute capability "
            f"{g['capability']}), and no other runs there"
        )
    return ""
