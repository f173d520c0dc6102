"""How a model is divided over several GPUs, and what the engine refuses to divide."""

from . import tables


def share(model: "str | dict", tensor_parallel: int) -> float:
    """Return the share of the KV cache that each of so many GPUs keeps: its heads', at least one whole head's.

    A latent cache has no heads and is kept whole on each. Raises ValueError where heads cannot be divided: attention heads
    must be a multiple of the GPUs, and of KV heads and GPUs one must be a multiple of the other, as vLLM 0.32.0 asserts in
    its models (`model_executor/models/llama.py`, LlamaAttention).
    """
    m = tables.model(model)
    tables.whole("tensor_parallel", tensor_parallel)
    kinds = [("attention", m["heads"], m["heads"] % tensor_parallel)]
    kinds.append(("linear key", m["linear_key_heads"], m["linear_key_heads"] % tensor_parallel))
    if not m["kv_lora_rank"]:
        more, fewer = max(m["kv_heads"], tensor_parallel), min(m["kv_heads"], tensor_parallel)
        kinds.append(("KV", m["kv_heads"], more % fewer))
    for kind, heads, rest in kinds:
        if rest:
            raise ValueError(
                f"{m['name']} has {heads} {kind} heads: not divisible by tensor_parallel {tensor_parallel}"
            )
    return 1.0 if m["kv_lora_rank"] else max(1 / tensor_parallel, 1 / m["kv_heads"])


def stages(layers: int, pipeline_parallel: int) -> list:
    """Return how many layers each stage of a pipeline has: what is left over goes to the stages before the last one.

    As vLLM 0.32.0 divides them (`distributed/utils.py`, get_pp_indices). Raises ValueError for more stages than layers.
    """
    if tables.whole("pipeline_parallel", pipeline_parallel) > layers:
        raise ValueError(f"{layers} layers are too few for pipeline_parallel {pipeline_parallel}")
    each = [layers // pipeline_parallel] * pipeline_parallel
    for number in range(layers % pipeline_parallel):
        each[-2 - number] += 1
    return each
