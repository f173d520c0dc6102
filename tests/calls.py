"""Calls of the functions of calc and web and what came of them, as text: imported by CPython, and by MicroPython as it stands."""

import json


def told(value):
    """Return a value as JSON can carry it without loss: whole numbers and others apart, dicts in the order of their keys."""
    if value is None or value is True or value is False or isinstance(value, str):
        return value
    if isinstance(value, Exception):
        return {"exception": str(value)}
    if isinstance(value, dict):
        return {"dict": sorted([[str(key), told(value[key])] for key in value], key=lambda item: item[0])}
    if isinstance(value, (list, tuple)):
        return [told(one) for one in value]
    return {"float" if isinstance(value, float) else "int": repr(value)}


def named(path):
    """Return the function or class `module.name` of calc or web; without a module, one of those below."""
    module, _, name = path.rpartition(".")
    package = "llminfra.web." if module in ("markup", "widgets") else "llminfra.calc."
    return getattr(__import__(package + module, None, None, ["*"]), name) if module else globals()[name]


def drawn(seed, count):
    """Numbers of a seeded generator."""
    draw = named("rng.Random")(seed)
    return [[draw.random(), draw.below(7), draw.exponential(3.0)] for _ in range(count)]


def pooled(blocks, block_tokens, operations):
    """What a pool of blocks says to each of a list of operations, (method, arguments ...), and where it stands then."""
    pool = named("kvblocks.BlockPool")(blocks, block_tokens)
    said = []
    for operation in operations:
        try:
            said.append(getattr(pool, operation[0])(*operation[1:]))
        except ValueError as error:
            said.append(str(error))
    return [said, pool.tables, pool.owners, pool.used]


def applied(path, arguments, more, inputs):
    """What the function that a function returns gives for each of the inputs."""
    function = named(path)(*arguments, **more)
    return [function(*one) for one in inputs]


def lengths(seed, kind, which):
    """Lengths drawn from a generator."""
    draw = named("rng.Random")(seed)
    length = named("workload.lengths")(kind, which)
    return [length(draw) for _ in range(20)]


def paired(seed, name):
    """Pairs of lengths drawn from a generator."""
    draw = named("rng.Random")(seed)
    pair = named("workload.pairs")(name)
    return [pair(draw) for _ in range(20)]


def simulated(arguments, more, step, settings):
    """What becomes of requests in the simulator."""
    requests = named("workload.requests")(*arguments, **more)
    return named("simulator.simulate")(requests, named("roofline.step_time")(*step), **settings)


def wasted(arguments, more, policy, block_tokens):
    """The wasted share of the places of requests."""
    return named("kvblocks.wasted_share")(named("workload.requests")(*arguments, **more), policy, block_tokens)


def outcome(call):
    """Return what one call gives: {"function", "arguments", "named"} to {"value"}, {"error"}, or {"bug"}: another error."""
    try:
        return {"value": told(named(call["function"])(*call["arguments"], **call["named"]))}
    except ValueError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"bug": f"{type(error).__name__}: {error}"}


def outcomes(calls):
    """Return the outcomes of a JSON list of calls, as JSON."""
    return json.dumps([outcome(call) for call in json.loads(calls)])
