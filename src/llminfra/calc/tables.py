"""GPUs, models and prices, each value with its source and the day it was read.

The JSON files in `data/` hold them; this module looks names up and says which names are near when one is wrong.
MicroPython's dicts keep no order and its sort is not stable, so every order here is sorted to the last tie.
"""

import json

from . import names

_FOLDER = __file__.replace("\\", "/").rsplit("/", 1)[0] + "/data/"
_loaded: dict = {}

OPTIONAL = (
    "experts",
    "experts_per_token",
    "expert_intermediate",
    "shared_intermediate",
    "dense_layers",
    "moe_extra_parameters",
    "kv_lora_rank",
    "q_lora_rank",
    "rope_head_dim",
    "nope_head_dim",
    "v_head_dim",
    "window",
    "window_layers",
    "linear_layers",
    "linear_key_heads",
    "linear_value_heads",
    "linear_head_dim",
    "conv_kernel",
    "state_bits",
    "gated_attention",
    "qk_norm_parameters",
    "vision_parameters",
)
"""Keys of a model's record that are 0 where its architecture has no such part."""


def read(name: str) -> dict:
    """Return a data file, as it stands: gpus, models, prices, api_prices, assumptions or workloads."""
    if name not in _loaded:
        with open(_FOLDER + name + ".json", encoding="utf-8") as opened:
            _loaded[name] = json.load(opened)
    return _loaded[name]


def _distance(a: str, b: str) -> int:
    """Return how many letters must be put in, taken out or changed to make `b` of `a` (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            before, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, before + (x != y))
    return row[-1]


FEW = 12
"""So many known names are all told when one is wrong."""


def unknown(kind: str, name: str, known: list) -> ValueError:
    """Return the error for a wrong name: what was asked for, the nearest known names, and all if these are few."""
    lower = str(name).lower()

    def far(other: str) -> tuple:
        distance = _distance(lower, other.lower())
        return (0 if lower and lower in other.lower() else distance, distance, other)

    near = sorted(known, key=far)
    few = f"{', '.join(near[:2])}; known: {', '.join(known)}" if len(known) <= FEW else ", ".join(near[:5])
    return ValueError(f"no {kind} {name!r}; nearest: {few}")


def positive(what: str, value: float) -> float:
    """Return `value` if it is more than 0, or raise ValueError that names it."""
    if not value > 0:
        raise ValueError(f"{what} must be more than 0, not {value!r}")
    return value


def not_negative(what: str, value: float) -> float:
    """Return `value` if it is 0 or more, or raise ValueError that names it."""
    if not value >= 0:
        raise ValueError(f"{what} must not be negative, not {value!r}")
    return value


def whole(what: str, value: int) -> int:
    """Return `value` if it is a whole number of at least 1, or raise ValueError that names it."""
    if value != value or value < 1 or value != int(value):
        raise ValueError(f"{what} must be a whole number of at least 1, not {value!r}")
    return int(value)


def fraction(what: str, value: float) -> float:
    """Return `value` if it is more than 0 and at most 1, or raise ValueError that names it."""
    if not 0 < value <= 1:
        raise ValueError(f"{what} must be more than 0 and at most 1, not {value!r}")
    return value


def gpus() -> list:
    """Return the names of the known GPUs, from the smallest to the largest."""
    rows = read("gpus")["gpus"]
    return sorted(
        rows, key=lambda name: (rows[name]["values"]["memory_bytes"], rows[name]["values"]["rates"]["fp16"], name)
    )


def models() -> list:
    """Return the names of the known models, from the smallest to the largest."""
    rows = read("models")["models"]
    return sorted(rows, key=lambda name: (rows[name]["values"]["parameters"], name))


def _record(table: str, name: str) -> dict:
    row = read(table)[table][name]
    record = {"name": name, "title": row["title"], "unverified": list(row["unverified"])}
    record.update(row["values"])
    return record


def gpu(name: "str | dict") -> dict:
    """Return a GPU's record by its name, as people write it (`names.gpu`); a record is returned as it is, so that a caller may bring a GPU of its own (and its price, as
    usd_per_gpu_hour).

    Keys: name, title, memory_bytes (as sold), usable_bytes (what CUDA reports as total), bandwidth_bytes_per_s,
    rates (precision to dense operations per second; fp32 without tensor cores), link, link_bytes_per_s (to another GPU of
    the machine, one direction), capability, bf16, fp8, flash_attention_2 (whether it has them),
    watts, unverified (the keys whose values no primary source confirms), and for a GPU that the engine does not run on
    unsupported (why).
    """
    if isinstance(name, dict):
        return name
    found = names.gpu(name, gpus())
    if found is None:
        raise unknown("GPU", name, gpus())
    record = _record("gpus", found)
    record["rates"] = dict(record["rates"])
    record["rates"]["fp32"] = record["fp32_flop_per_s"]
    return record


def model(name: "str | dict") -> dict:
    """Return a model's record; a record is returned as it is, with what it leaves out.

    `name` is a name of `models` or a published id (owner/name), as people write them: see `names.model`. Keys: name, title,
    id (on the hub), layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, tied_embeddings, qkv_bias,
    parameters, max_position (tokens), licence, gated, unverified; and, 0 where there is no such part:

    - experts, experts_per_token, expert_intermediate (an expert's width), shared_intermediate (of those that are always
      on), dense_layers (how many have no experts), moe_extra_parameters (a layer's, beside experts and router);
    - kv_lora_rank, q_lora_rank, rope_head_dim, nope_head_dim, v_head_dim: multi-head latent attention;
    - window (tokens), window_layers (how many layers attend to the window only);
    - linear_layers (how many have linear attention in place of a cache), linear_key_heads, linear_value_heads, linear_head_dim,
      conv_kernel, state_bits (of a number of the state); gated_attention (1 if the other layers gate their output);
    - qk_norm_parameters (a layer's), norms_per_layer (2 where not said), vision_parameters (of an encoder for images, which is
      loaded too).
    """
    if isinstance(name, dict):
        record = dict(name)
    else:
        rows = read("models")["models"]
        found = names.model(name, [(key, rows[key]["values"]["id"]) for key in models()])
        if found is None:
            raise unknown("model", name, models())
        record = _record("models", found)
    for key in OPTIONAL:
        record.setdefault(key, 0)
    record.setdefault("norms_per_layer", 2)
    return record


def prices(gpu_name: str) -> list:
    """Return every known on-demand price of a GPU, cheapest per GPU first.

    Keys: gpu, provider, usd_per_gpu_hour, lowest_usd (the low end of a range), gpus_per_instance (how many one must
    rent at once), sizes (how many GPUs its machines have), instance, kind ("machine", "pod": a container on a shared one, or "serverless": billed by
    the second for as long as a worker runs), source, url, read (the day), partial (what the price leaves out, or empty), unverified, note.
    """
    if gpu_name not in gpus():
        raise unknown("GPU", gpu_name, gpus())
    table = read("prices")
    found = []
    for row in table["prices"]:
        if row["gpu"] == gpu_name:
            record = {"lowest_usd": row["usd_per_gpu_hour"], "partial": "", "note": ""}
            record.update(row)
            record.setdefault("sizes", [row["gpus_per_instance"]])
            source = table["sources"][row["source"]]
            record.update({"source": source["title"], "url": source["url"], "read": source["read"]})
            record["kind"] = source["kind"]
            found.append(record)
    return sorted(found, key=lambda record: (record["usd_per_gpu_hour"], record["provider"]))


def providers(gpu_name: str) -> list:
    """Return who rents this GPU out, cheapest per GPU first."""
    return [record["provider"] for record in prices(gpu_name)]


def price(gpu_name: str, provider: "str | None" = None) -> dict:
    """Return one price record of `prices`: the provider's, or else the cheapest that is complete and verified, and rented by the
    hour if any is (not serverless).

    Where a source gives a range, its upper end counts, so that a cost is not understated.
    """
    found = prices(gpu_name)
    if provider is None:
        found = [record for record in found if not record["partial"] and not record["unverified"]]
        found = [record for record in found if record["kind"] != "serverless"] or found
    else:
        found = [record for record in found if record["provider"] == provider]
    if not found:
        raise unknown(f"price of a {gpu_name} from", provider or "any provider", providers(gpu_name))
    return found[0]


def api_prices() -> list:
    """Return list prices of hosted open-weight models, cheapest output first.

    Keys: provider, model, usd_per_million_input, usd_per_million_output, source, url, read, unverified.
    """
    table = read("api_prices")
    found = []
    for row in table["api_prices"]:
        source = table["sources"][row["source"]]
        record = dict(row)
        record.update({"source": source["title"], "url": source["url"], "read": source["read"]})
        found.append(record)
    return sorted(found, key=lambda record: (record["usd_per_million_output"], record["provider"], record["model"]))


def assumption(name: str) -> dict:
    """Return an assumption of the arithmetic: value, unit, why, and whether it is unverified."""
    table = read("assumptions")["assumptions"]
    if name not in table:
        raise unknown("assumption", name, sorted(table))
    return table[name]


def sourced(table: str, name: str, field: str) -> dict:
    """Return where a value of the tables `gpus` or `models` comes from: value, source, url, read, unverified."""
    if table not in ("gpus", "models"):
        raise unknown("table", table, ["gpus", "models"])
    known = gpus() if table == "gpus" else models()
    if name not in known:
        raise unknown(table[:-1], name, known)
    row = read(table)[table][name]
    if field not in row["values"]:
        raise unknown(f"field of {name}", field, sorted(row["values"]))
    source = read(table)["sources"][row["from"][field]]
    return {
        "value": row["values"][field],
        "source": source["title"],
        "url": source["url"],
        "read": source["read"],
        "unverified": field in row["unverified"],
    }
