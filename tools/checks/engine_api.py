"""What the installed vLLM says of an HTTP request: its routes, and each route's model of the body, asked without an engine.

The engine takes unknown fields of a body and ignores them, so a misspelt one changes nothing and says nothing; here it is refused.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType, is_typeddict

from checks import engine_cli

# Routes that an engine has only where these are set.
SWITCHES = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}


@dataclass(frozen=True)
class Route:
    """A route of a service: its methods, its path as an expression, and the type of its body (None: it reads none)."""

    methods: frozenset[str]
    path: re.Pattern[str]
    body: Any


@functools.cache
def routes() -> list[Route]:
    """Return every route that an engine has, whatever model it serves."""
    arguments = engine_cli.check_serve_args(["model"])
    before = {name: os.environ.get(name) for name in SWITCHES}
    level = logging.root.manager.disable
    os.environ.update(SWITCHES)
    logging.disable(logging.WARNING)
    try:
        return of_app(_app(arguments))
    finally:
        logging.disable(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _app(arguments: Any) -> Any:
    from fastapi import FastAPI
    from vllm.entrypoints.launchers.api_server.routers import register_api_routers
    from vllm.entrypoints.pooling.classify.api_router import router as classify
    from vllm.entrypoints.pooling.embed.api_router import router as embed
    from vllm.entrypoints.pooling.pooling.api_router import router as pooling
    from vllm.entrypoints.pooling.scoring.api_router import router as scoring

    app = FastAPI()
    app.state.args = arguments
    register_api_routers(arguments, app, ("generate", "transcription"))
    for router in (classify, embed, pooling, scoring):
        app.include_router(router)
    return app


def of_app(app: Any) -> list[Route]:
    """Return the routes of a FastAPI application."""
    found = []
    for route in app.routes:
        bodies = route.dependant.body_params if hasattr(route, "dependant") else []
        body = bodies[0].field_info.annotation if len(bodies) == 1 else None
        found.append(Route(frozenset(getattr(route, "methods", None) or {"GET"}), route.path_regex, body))
    return found


def problems(known: list[Route], method: str, path: str, body: str | None, who: str) -> list[tuple[str, str]]:
    """Return why a service with these routes refuses a request, or misreads its body, which is JSON: (key of the body, reason).

    `who` names the service. The key is empty where the reason is none of the body's.
    """
    here = [route for route in known if route.path.match(path)]
    if not here:
        return [("", f"{who} serves no {path}")]
    route = next((route for route in here if method in route.methods), None)
    if route is None:
        methods = ", ".join(sorted({name for other in here for name in other.methods}))
        return [("", f"{who} takes no {method} of {path}, only {methods}")]
    if route.body is None:
        return []
    if body is None:
        return [("", f"{method} {path} needs a body")]
    given = json.loads(body)
    unknown = list(_unknown([route.body], given, ""))
    if unknown:
        return [(at.rpartition(".")[2], f"{who} has no field {at} in the body of {path}") for at in unknown]
    return [(key, f"{who} refuses the body of {path}: {reason}") for key, reason in _invalid(route.body, given)]


def _invalid(body: Any, given: Any) -> list[tuple[str, str]]:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(body).validate_python(given)
    except ValidationError as error:
        deepest = max(error.errors(), key=lambda one: len(one["loc"]))
        at = [str(part) for part in deepest["loc"]]
        return [(at[-1] if at else "", ": ".join(filter(None, (".".join(at), deepest["msg"]))))]
    except (TypeError, ValueError) as error:
        return [("", str(error))]
    return []


def _unknown(kinds: list[Any], given: Any, at: str) -> Iterator[str]:
    """Yield the path of each key in a value that none of the types it may have knows."""
    kinds = [one for kind in kinds for one in _members(kind)]
    if isinstance(given, list):
        inner = [arg for kind in kinds if get_origin(kind) for arg in get_args(kind)]
        for number, value in enumerate(given):
            yield from _unknown(inner, value, f"{at}[{number}]")
    elif isinstance(given, dict):
        fields: dict[str, list[Any]] = {}
        for kind in kinds:
            for name, field in _fields(kind):
                fields.setdefault(name, []).append(field)
        anything = any(kind in (Any, dict, object) or get_origin(kind) is dict for kind in kinds)
        if not fields or anything:
            return
        for name, value in given.items():
            path = f"{at}.{name}".strip(".")
            if name not in fields:
                yield path
            else:
                yield from _unknown(fields[name], value, path)


def _members(kind: Any) -> Iterator[Any]:
    """Yield the types that a type is one of: unions, annotations and aliases taken apart."""
    if isinstance(kind, TypeAliasType):
        yield from _members(kind.__value__)
    elif get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from _members(one)
    else:
        yield kind


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names that a model or a typed dictionary takes, each with its type."""
    if is_typeddict(kind):
        yield from get_type_hints(kind).items()
    elif isinstance(kind, type) and hasattr(kind, "model_fields"):
        for name, field in kind.model_fields.items():
            aliases = [alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)]
            aliases += [choice for choice in getattr(field.validation_alias, "choices", []) if isinstance(choice, str)]
            yield from ((one, field.annotation) for one in {name, *aliases})
