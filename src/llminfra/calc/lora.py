"""The size of low-rank adapters (LoRA 2106.09685): what is trained, and what the engine reserves for them."""

from . import parallel, tables

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
"""The matrices of a layer, attention's and then the MLP's."""


def parameters(model: "str | dict", rank: int, targets: tuple = ("q", "v")) -> int:
    """Return the trainable parameters of a LoRA of this rank on these projections: rank x (in + out) each, per layer.

    Targets are among `PROJECTIONS` (LoRA 2106.09685, section 4.2). Raises ValueError for another one.
    """
    m = tables.model(model)
    tables.positive("rank", rank)
    if m["kv_lora_rank"] or m["experts"]:
        raise ValueError(f"{m['name']} has experts or latent attention: its projections are not these seven")
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


def values(model: "str | dict", rank: int, tensor_parallel: int = 1) -> int:
    """Return how many numbers vLLM reserves on a GPU for one adapter of up to this rank, whatever it adapts.

    For every linear module, and the embedding and the head where the model's class prepares them as Llama's does: a matrix of rank
    x inputs for each matrix that is packed in it, and one of outputs x rank; of several GPUs each has its share of the side that is
    divided (vLLM 0.32.0, `lora/layers`). Raises ValueError for latent and linear attention, whose modules are not modelled.
    """
    m = tables.model(model)
    tables.whole("rank", rank)
    if m["kv_lora_rank"] or m["linear_layers"]:
        raise ValueError(f"{m['name']}: adapters for latent or linear attention are not modelled")
    tp, hidden = tensor_parallel, m["hidden"]
    q, kv = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"] * tp * parallel.share(m, tp)
    attention = 3 * hidden + (q + 2 * kv) / tp + q / tp + hidden

    def mlp(width: int) -> float:
        return 2 * hidden + 2 * width / tp + width / tp + hidden

    layers = m["layers"] * attention
    routed = m["layers"] - m["dense_layers"] if m["experts"] else 0
    layers += (m["layers"] - routed) * mlp(m["intermediate"])
    if routed:
        # The router is a module too.
        layers += routed * (m["experts"] * mlp(m["expert_intermediate"]) + hidden + m["experts"])
        if m["shared_intermediate"]:
            layers += routed * mlp(m["shared_intermediate"])
    return int(rank * (layers + 2 * (m["vocab"] + hidden)))
