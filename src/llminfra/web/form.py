"""The fields of a widget, and their values as they arrive: strings from a form or from an address."""

from ..calc import tables
from .markup import fixed

SERVED = ("bf16", "fp16", "fp8", "int8", "int4")
"""The precisions that a widget offers."""


PROVIDERS = {
    "aws": "AWS",
    "gcp": "Google Cloud",
    "lambda": "Lambda",
    "runpod": "RunPod",
    "runpod-pods": "RunPod",
    "tensorwave": "TensorWave",
    "modal": "Modal",
    "deepinfra": "DeepInfra",
    "fireworks": "Fireworks",
}


def provider(name: str) -> str:
    """Return what a provider is called."""
    return PROVIDERS.get(name, name)


def select(name: str, label: str, options: list, value: str, hint: str = "") -> dict:
    """Return a field with a list to choose from: options are (value, words)."""
    return {"name": name, "label": label, "kind": "select", "options": options, "value": value, "hint": hint}


def number(name: str, label: str, value: str, low: float, high: float, step: float = 1, hint: str = "") -> dict:
    """Return a field for a number; a step of 1 or more takes whole numbers only."""
    field = {"name": name, "label": label, "kind": "number", "value": value, "min": low, "max": high}
    field.update({"step": step, "hint": hint})
    return field


def slider(name: str, label: str, value: str, low: int, high: int, hint: str = "") -> dict:
    """Return a field for a whole number that is dragged."""
    field = number(name, label, value, low, high, 1, hint)
    field["kind"] = "range"
    return field


def more(fields: list) -> list:
    """Return these fields as ones that a page folds away, for those who look for them."""
    for field in fields:
        field["more"] = True
    return fields


def model(value: str = "Qwen2.5-7B-Instruct") -> dict:
    """Return the field for a model of `tables`."""
    return select("model", "Model", [(name, tables.model(name)["title"]) for name in tables.models()], value)


def gpu(value: str = "a10g") -> dict:
    """Return the field for a GPU of `tables`."""
    return select("gpu", "GPU", [(name, tables.gpu(name)["title"]) for name in tables.gpus()], value)


def precision(value: str = "bf16") -> dict:
    """Return the field for a precision of the weights."""
    return select("precision", "Precision of the weights", [(name, name) for name in SERVED], value)


def read(fields: list, values: dict) -> dict:
    """Return the value of every field, numbers as numbers; what `values` leaves out has its default.

    ValueError, in a sentence that names the field, for a name that is no field's and for a value that a field refuses.
    """
    known = [field["name"] for field in fields]
    for name in sorted(values):
        if name not in known:
            raise tables.unknown("field", name, known)
    found = {}
    for field in fields:
        given = values.get(field["name"], field["value"])
        if field["kind"] == "select":
            choices = [option[0] for option in field["options"]]
            if given not in choices:
                raise tables.unknown(field["name"], given, choices)
            found[field["name"]] = given
        else:
            found[field["name"]] = _number(field, given)
    return found


def _number(field: dict, given: str) -> float:
    whole = field["step"] >= 1
    digits = given.strip().replace(".", "", 0 if whole else 1)
    value = (int(digits) if whole else float(given)) if _plain(digits) else None
    if value is None or not field["min"] <= value <= field["max"]:
        kind = "a whole number" if whole else "a number"
        places = 0 if whole else len(str(field["step"]).split(".")[-1])
        low, high = fixed(field["min"], places), fixed(field["max"], places)
        raise ValueError(f"{field['label']}: give {kind} from {low} to {high}, not {given.strip() or 'nothing'}")
    return value


def _plain(digits: str) -> bool:
    return 0 < len(digits) < 16 and all([letter in "0123456789" for letter in digits])
