"""Manifests of Kubernetes: by the strict schemas of one version of it, by those of custom resources, and by what no schema says.

The names of resources are free text to a schema, and a misspelt one (`nvidia.com/gpus`) leaves a pod pending with no error.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from checks import Faults, line_of

VERSION = "1.37"
# Where the schemas of custom resources ship: the group of an apiVersion, and the package of models of its versions.
CUSTOM = {
    "monitoring.coreos.com": "cloudcoil.models.prometheus_operator",
    "keda.sh": "cloudcoil.models.keda",
}
# The names of resources: those of Kubernetes, and what the device plugins of the vendors call theirs.
RESOURCES = re.compile(
    r"cpu|memory|ephemeral-storage|storage|pods|hugepages-\d+[KMG]i|"
    r"nvidia\.com/(?:gpu|gpu\.shared|mig-\d+g\.\d+gb(?:\.me)?)|amd\.com/gpu|gpu\.intel\.com/(?:i915|xe)|"
    r"google\.com/tpu|habana\.ai/gaudi|aws\.amazon\.com/neuron(?:core|device)?|rdma/[\w-]+"
)


def problems(document: dict[str, Any], text: str) -> Faults:
    """Return what is wrong with a manifest, which stands in a text: (line from 1, or 0 where unknown; reason)."""
    group = document["apiVersion"].rpartition("/")[0]
    found = _custom(document, text) if group in CUSTOM else _of_schema(document, text)
    return found + [(line_of(text, name), reason) for name, reason in _resources(document)]


def _of_schema(document: dict[str, Any], text: str) -> Faults:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        at = ".".join(str(part) for part in error.path)
        name = re.search(r"'([^']+)' was unexpected", error.message)
        line = line_of(text, name.group(1) + ":") if name else line_of(text, str(error.path[-1])) if error.path else 0
        return [(line, f"Kubernetes {VERSION} refuses {document['kind']}: {at}: {error.message}")]
    except kubernetes_validate.SchemaNotFoundError:
        return [
            (
                line_of(text, document["kind"]),
                f"no schema of {document['apiVersion']} {document['kind']}: add its package to CUSTOM in tools/checks/kubernetes.py, or say why it is unchecked",
            )
        ]
    return []


def _custom(document: dict[str, Any], text: str) -> Faults:
    from pydantic import ValidationError

    group, _, version = document["apiVersion"].rpartition("/")
    name = f"{document['apiVersion']} {document['kind']}"
    try:
        model = getattr(importlib.import_module(f"{CUSTOM[group]}.{version}"), document["kind"])
    except (ImportError, AttributeError):
        return [(line_of(text, document["kind"]), f"{CUSTOM[group]} has no {name}")]
    try:
        kept = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return [(line_of(text, str(first["loc"][-1])), f"{name}: {where}: {first['msg']}")]
    return [(line_of(text, f"{key}:"), f"{name} has no field {path}") for path, key in _dropped(document, kept)]


def _dropped(given: Any, kept: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, key) of each field that a schema did not keep: pydantic ignores what it does not know."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            path = f"{at}.{key}".strip(".")
            if key not in kept:
                yield path, key
            else:
                yield from _dropped(value, kept[key], path)
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (mine, other) in enumerate(zip(given, kept, strict=False)):
            yield from _dropped(mine, other, f"{at}[{number}]")


def _resources(part: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, reason) of each resource that no node offers, or that is asked for as Kubernetes does not take it."""
    if isinstance(part, list):
        for value in part:
            yield from _resources(value)
    if not isinstance(part, dict):
        return
    asked = part.get("resources")
    if isinstance(asked, dict):
        requests, limits = (asked.get(name) or {} for name in ("requests", "limits"))
        for name in dict.fromkeys([*requests, *limits]):
            reason = _misnamed(name) or _uneven(name, requests, limits)
            if reason:
                yield name, reason
    for metric in ("resource", "containerResource"):
        name = part[metric].get("name") if isinstance(part.get(metric), dict) else None
        if name is not None and part.get("type") in ("Resource", "ContainerResource") and name not in ("cpu", "memory"):
            yield name, f"an autoscaler reads the resources cpu and memory, not {name}"
    if isinstance(part.get("hard"), dict):
        names = {key: re.sub(r"^(?:requests|limits)\.", "", key) for key in part["hard"] if "/" in key}
        yield from ((key, reason) for key, name in names.items() if (reason := _misnamed(name)))
    for value in part.values():
        yield from _resources(value)


def _misnamed(name: str) -> str:
    if RESOURCES.fullmatch(name):
        return ""
    return f"no node offers a resource {name}: its pod would stay pending (known names: RESOURCES in tools/checks/kubernetes.py)"


def _uneven(name: str, requests: dict[str, Any], limits: dict[str, Any]) -> str:
    """Return why Kubernetes refuses the amounts of a device; it shares none between pods."""
    if "/" not in name:
        return ""
    amounts = {str(given[name]) for given in (requests, limits) if name in given}
    if name not in limits or len(amounts) > 1:
        return f"{name} needs a limit, and a request, if there is one, that equals it"
    return "" if amounts.pop().isdigit() else f"{name} is counted in whole devices"
