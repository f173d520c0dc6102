"""A site of ten pages of every kind the course has, made from the data below: `python tests/site/fixture.py FOLDER`."""

import atexit
import base64
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Each chapter: title, sections of prose, bars of its figure, a formula, a table, code.
CHAPTERS = {
    "01-key-value-cache": {
        "title": "The key-value cache",
        "sections": {
            "Why memory grows with every token": "Attention reads the keys and values of all earlier tokens, so a server keeps them instead of computing them again. The cache grows by the same number of bytes for each token, whether a person or the model wrote it. A long conversation can outweigh the weights of the model that holds it.",
            "Blocks instead of one piece": "Reserving the longest answer that anybody may ask for leaves most of the memory empty. A pool of equal blocks, handed out one at a time through a block table, loses only the end of the last one. This is the idea of paged attention, and it came from operating systems.",
            "When the pool is empty": "A request that needs another block when none is free must wait or make another one give way. The scheduler takes back the blocks of the youngest request: this is preemption, and the work is done a second time. Watch the counter of preemptions before you raise the number of concurrent users.",
        },
        "bars": {"weights": 14, "cache of 100 chats": 22, "activations": 2},
        "formula": r"\text{bytes per token} = 2 \times L \times H \times d \times b",
        "table": [("Model", "Layers", "KiB per token"), ("Small", 30, 22), ("Medium", 28, 56), ("Large", 80, 320)],
        "code": ("python", "def cache_bytes(tokens, layers, heads, size, width=2):\n    return 2 * tokens * layers * heads * size * width\n"),
    },
    "02-continuous-batching": {
        "title": "Continuous batching",
        "sections": {
            "A seat for everyone": "A static batch waits for its slowest member, and the finished ones keep their seats. Iteration-level scheduling decides at each step who takes part, so a short answer leaves as soon as it ends. Throughput rises because the weights are read once for the whole batch.",
            "How many at once": "The argument `max_num_seqs` bounds how many requests may run in one step, and `max_num_batched_tokens` how many tokens they bring. Raise the first until latency, not memory, becomes the limit. Every user whom you add makes each step a little longer for all the others.",
            "Fairness and priorities": "First come, first served is easy to reason about and unkind to short questions behind long documents. Priority scheduling lets interactive traffic overtake nightly jobs. Starvation is the price, so age the waiting requests.",
        },
        "bars": {"static": 9, "continuous": 31, "chunked": 34},
        "formula": r"\text{throughput} = \frac{\text{batch size}}{t_{\text{step}}}",
        "table": [("Batch", "Tokens/s", "Step"), (1, 40, "25 ms"), (8, 280, "29 ms"), (32, 900, "36 ms")],
        "code": ("bash", "vllm serve ./model --max-num-seqs 64 --max-num-batched-tokens 2048 --scheduling-policy priority\n"),
    },
    "03-prefix-caching": {
        "title": "Prefix caching",
        "sections": {
            "Prompts begin alike": "A system prompt of a thousand tokens precedes each question, and its keys and values are the same each time. Blocks are found again by a hash that covers all tokens before them. A hit skips prefill for the shared beginning and answers sooner.",
            "What breaks a hit": "A date or a user name in the first line makes every prompt unique from there on. Put what varies last. Salting the hash per tenant closes the side channel by which one customer could learn what another one asked.",
            "Eviction": "Blocks without an owner stay until their space is needed, and the least recently used ones go first. A cache that is too small for the working set thrashes. Compare the hit rate of an hour with the hit rate of a day.",
        },
        "bars": {"cold": 41, "warm": 7},
        "formula": r"\text{saved} = \text{hit rate} \times t_{\text{prefill}}",
        "table": [("Shared", "Hit rate", "First token"), ("0 %", "0 %", "410 ms"), ("90 %", "88 %", "70 ms")],
        "code": ("json", '{"enable_prefix_caching": true, "prefix_caching_hash_algo": "sha256"}\n'),
    },
    "04-speculative-decoding": {
        "title": "Speculative decoding",
        "sections": {
            "Guess, then verify": "A small draft model proposes four tokens, and the large target model checks all of them in one step. Rejection sampling keeps the output distribution exactly that of the target. Memory bandwidth, not arithmetic, is what the guesses save.",
            "Acceptance decides": "If seven of ten guesses are accepted, a step makes more than two tokens. If two of ten are, drafting costs more than it gives. An n-gram lookup in the prompt drafts for free, and works for summaries and for code.",
            "When to leave it off": "A full batch has no idle arithmetic to spend on guesses. Speculation helps few users who are in a hurry, and hurts many who share. Measure at your own load before you turn it on.",
        },
        "bars": {"plain": 40, "n-gram": 61, "draft model": 74},
        "formula": r"E[\text{tokens}] = \frac{1-\alpha^{k+1}}{1-\alpha}",
        "table": [("Drafted", "Accepted", "Speed-up"), (2, "81 %", 1.6), (4, "70 %", 1.9), (8, "48 %", 1.4)],
        "code": ("yaml", "speculative_config:\n  method: ngram\n  num_speculative_tokens: 4\n"),
    },
    "05-quantization": {
        "title": "Quantization",
        "sections": {
            "Fewer bits": "Weights of sixteen bits become eight or four, with a scale for each group of them. Decoding reads all weights for each token, so half the bytes is nearly twice the speed. Activations have outliers, which is why they are harder to quantize than weights.",
            "Calibration": "Methods such as GPTQ and AWQ look at a few hundred samples of text to choose scales. Samples that look like your traffic matter more than their number. Perplexity on held-out text shows a broken scale at once.",
            "What you lose": "Rare facts and long arithmetic suffer first, and small models more than large ones. Evaluate the task that you serve, with intervals, before and after. A quantized large model usually beats a small one of the same size in bytes.",
        },
        "bars": {"bf16": 14, "fp8": 7, "int4": 4},
        "formula": r"q = \operatorname{round}\left(\frac{w}{s}\right) + z",
        "table": [("Format", "Gigabytes", "Perplexity"), ("bf16", 14.2, 6.1), ("fp8", 7.2, 6.1), ("int4", 4.1, 6.4)],
        "code": ("python", "scale = abs(weights).max() / 127\nquantized = (weights / scale).round().astype('int8')\n"),
    },
    "06-tensor-parallelism": {
        "title": "Tensor parallelism",
        "sections": {
            "One layer, several devices": "Each device holds a slice of every matrix and computes its part of the product. After attention and after the feed-forward block the parts are added by an all-reduce. The devices step together, so the slowest one sets the pace.",
            "The wire matters": "Two all-reduces a layer cross the interconnect for each token. NVLink hides them; PCI Express does not. Pipeline parallelism sends less, and leaves devices idle while the pipeline fills.",
            "Choosing a layout": "Take the fewest devices that hold the weights and the cache that you need. Set `tensor_parallel_size` to a divisor of the number of attention heads. Replicas behind a load balancer scale better than a wider model.",
        },
        "bars": {"1 GPU": 10, "2 GPUs": 18, "4 GPUs": 29},
        "formula": r"t = \frac{2 P b}{n B} + 2 L\, t_{\text{all-reduce}}",
        "table": [("Devices", "Link", "Efficiency"), (2, "NVLink", "93 %"), (2, "PCIe", "71 %"), (4, "PCIe", "48 %")],
        "code": ("bash", "vllm serve ./model --tensor-parallel-size 2 --distributed-executor-backend mp\n"),
    },
    "07-observability": {
        "title": "Observability",
        "sections": {
            "Four numbers": "Time to first token, inter-token latency, queue length and cache usage tell most of the story. Averages hide the person who waits: plot percentiles. Prometheus scrapes the endpoint `/metrics` every few seconds.",
            "Alerts that wake nobody in vain": "Alert on the service-level objective, not on its causes. A burn rate over two windows catches fast and slow failures. Link each alert to the page of the runbook that ends it.",
            "Traces and logs": "A trace follows one request through gateway, queue and engine. Log identifiers and lengths, never the words that people typed. Sample what is ordinary and keep all that failed.",
        },
        "bars": {"p50": 180, "p95": 640, "p99": 1900},
        "formula": r"\text{burn rate} = \frac{\text{error rate}}{1 - \text{objective}}",
        "table": [("Metric", "Kind", "Unit"), ("Time to first token", "histogram", "seconds"), ("Requests waiting", "gauge", "requests")],
        "code": ("promql", "histogram_quantile(0.95, sum by (le) (rate(request_duration_seconds_bucket[5m])))\n"),
    },
    "08-kubernetes-autoscaling": {
        "title": "Autoscaling on Kubernetes",
        "sections": {
            "A pod that loads for minutes": "Pulling an image and reading weights takes longer than most spikes last. A startup probe gives the container time; a readiness probe keeps traffic away until it can answer. Keep weights on a local disk or in a shared cache.",
            "What to scale on": "Processor utilization says nothing about a device that is always busy. Scale on waiting requests per replica. Scale up fast and down slowly, because a cold start costs more than an idle quarter of an hour.",
            "Draining": "On termination a pod leaves the endpoints first, and finishes its streams after that. Set the grace period above the longest answer. A disruption budget keeps a node upgrade from taking all replicas at once.",
        },
        "bars": {"pull": 95, "load": 48, "warm up": 12},
        "formula": r"\text{replicas} = \left\lceil \frac{\text{waiting}}{\text{target}} \right\rceil",
        "table": [("Probe", "Period", "Failures allowed"), ("startup", "10 s", 60), ("readiness", "5 s", 2), ("liveness", "30 s", 3)],
        "code": ("yaml", "startupProbe:\n  httpGet: {path: /health, port: 8000}\n  periodSeconds: 10\n  failureThreshold: 60\n"),
    },
}  # fmt: skip
# Widgets by the chapter that they stand in, with their options.
WIDGETS = {
    "01-key-value-cache": [("kvblocks", {})],
    "02-continuous-batching": [("simulator", {})],
    "05-quantization": [("roofline", {"precision": "int4"})],
    "06-tensor-parallelism": [("planner", {}), ("planner", {"model": "Llama-3-8B", "gpu": "h100"})],
    "08-kubernetes-autoscaling": [("cost", {})],
}
NOTEBOOK = "09-lora-adapters"
LORA = {
    "title": "LoRA adapters",
    "sections": {
        "Two thin matrices": "Low-rank adaptation freezes the weights and trains a product of two thin matrices beside them. An adapter weighs a few megabytes, so a customer can have one of their own. One base model serves hundreds of them in the same batch.",
        "Loading while serving": "An adapter is loaded on its first request, and the least used one makes room. The rank of the largest sets the memory for all. Check where an adapter came from as you would check a program.",
    },
    "bars": {"base": 14000, "adapter": 20},
}


def names():
    """Return the ten pages as the built site names them, the start page first."""
    return [f"book/{name}" for name in ("index", *CHAPTERS, NOTEBOOK)]


def svg(bars):
    """Return a bar chart with its values written beside the bars."""
    top = max(bars.values())
    rows = "".join(
        f'<text x="8" y="{30 + 34 * row}">{name}</text>'
        f'<rect x="170" y="{14 + 34 * row}" width="{340 * value / top:.0f}" height="22" fill="#00538a"/>'
        f'<text x="{178 + 340 * value / top:.0f}" y="{30 + 34 * row}">{value}</text>'
        for row, (name, value) in enumerate(bars.items())
    )
    size = f'width="600" height="{20 + 34 * len(bars)}" viewBox="0 0 600 {20 + 34 * len(bars)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="15">{rows}</svg>\n'


def png(width=480, height=160):
    """Return the bytes of a small plot: a rising line on white."""
    rows = b"".join(
        b"\0" + bytes(0x30 if abs(x // 3 + y - height) < 3 else 0xFF for x in range(width)) for y in range(height)
    )
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def figure(name, chapter):
    """Return a figure directive whose alternative text tells the values."""
    told = ", ".join(f"{bar} {value}" for bar, value in chapter["bars"].items())
    return f"```{{figure}} figures/{name}.svg\n:alt: Bars of different length: {told}.\n\n{chapter['title']}, drawn to scale.\n```"


def links(number):
    """Return a paragraph that links to the two chapters after this one, around the end."""
    files = [*CHAPTERS, NOTEBOOK]
    titles = [*(chapter["title"] for chapter in CHAPTERS.values()), LORA["title"]]
    after = [(number + step) % len(files) for step in (1, 2)]
    return "Read on: " + ", ".join(
        f"[{titles[there]}]({files[there]}{'.ipynb' if files[there] == NOTEBOOK else '.md'})" for there in after
    )


def description(chapter):
    """Return what a chapter's page says of itself, with marks that HTML gives a meaning."""
    return f'A page of the fixture site on "{chapter["title"].lower()}" & <all> that a chapter holds.'


def chapter_page(number, name, chapter):
    """Return a chapter as MyST: prose, figure, formula, table, code, a note, a folded question, and links."""
    head, *rows = ["| " + " | ".join(map(str, row)) + " |" for row in chapter["table"]]
    table = "\n".join([head, "|" + " --- |" * len(chapter["table"][0]), *rows])
    language, code = chapter["code"]
    between = [
        figure(name, chapter),
        f"$$\n{chapter['formula']}\n$$\n\n{table}",
        f"```{{code-block}} {language}\n{code}```",
    ]
    parts = [f"---\ndescription: '{description(chapter)}'\n---"]
    parts += [f"# {chapter['title']}", "What does it cost, and what does it save? Guess before you read."]
    for (heading, prose), extra in zip(chapter["sections"].items(), between, strict=True):
        parts += [f"## {heading}", prose, extra]
    for widget, options in WIDGETS.get(name, []):
        told = "".join(f":{option}: {value}\n" for option, value in options.items())
        parts += [f"```{{widget}} {widget}\n{told}```"]
    parts += [":::{note}\nThe figures of this page are invented.\n:::"]
    parts += [
        "## Check yourself",
        ":::{dropdown} Which figure would change your mind?\nOne that you measured on your own traffic.\n:::",
    ]
    return "\n\n".join([*parts, links(number)]) + "\n"


def notebook_page():
    """Return a chapter as an executed notebook: cells that printed, plotted, and were measured."""
    plot = base64.b64encode(png()).decode()
    image = {"mystnb": {"image": {"alt": "A line that rises from left to right: loss falls as the rank grows."}}}
    stream = {"output_type": "stream", "name": "stdout"}
    code = [
        ("rank, width = 8, 576\nprint(2 * rank * width)", {}, {**stream, "text": "9216\n"}),
        ("plot(losses)", image, {"output_type": "display_data", "data": {"image/png": plot}, "metadata": {}}),
        ("print(seconds)", {"tags": ["measured"]}, {**stream, "text": "0.0213 " * 30 + "\n"}),
    ]
    intro = f"# {LORA['title']}\n\nHow much of a model must change to change what it does?\n\n{figure(NOTEBOOK, LORA)}"
    prose = [intro, *(f"## {heading}\n\n{text}" for heading, text in LORA["sections"].items()), links(len(CHAPTERS))]
    cells = []
    for number, text in enumerate(prose):
        cells.append({"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": text})
        if number < len(code):
            source, metadata, output = code[number]
            cell = {"cell_type": "code", "id": f"code-{number}", "execution_count": number + 1, "metadata": metadata}
            cells.append({**cell, "source": source, "outputs": [output]})
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "description": "A page of the fixture site that is a notebook, with outputs that were printed, drawn and measured.",
    }
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def write(folder):
    """Write the sources of the site, with the course's own configuration, extensions, styles and templates."""
    book = folder / "book"
    (book / "figures").mkdir(parents=True)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    for part in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / part, book / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "book" / "references.bib", book)
    shutil.copy(ROOT / "_config.yml", folder)
    toc = ["format: jb-book", "root: book/index", "chapters:", *(f"  - file: {name}" for name in names()[1:])]
    (folder / "_toc.yml").write_text("\n".join(toc) + "\n", encoding="utf-8")
    start = "---\ndescription: The start page of a small site on which the course tests its own tools.\n---\n\n# A site of ten pages\n\nNine chapters about serving language models, each with all that a chapter of the course holds.\n\n"
    list_ = "\n".join(f"- [{chapter['title']}]({name}.md)" for name, chapter in CHAPTERS.items())
    (book / "index.md").write_text(f"{start}{list_}\n- [{LORA['title']}]({NOTEBOOK}.ipynb)\n", encoding="utf-8")
    for number, (name, chapter) in enumerate(CHAPTERS.items()):
        (book / f"{name}.md").write_text(chapter_page(number, name, chapter), encoding="utf-8")
    for name, chapter in {**CHAPTERS, NOTEBOOK: LORA}.items():
        (book / "figures" / f"{name}.svg").write_text(svg(chapter["bars"]), encoding="utf-8")
    (book / f"{NOTEBOOK}.ipynb").write_text(notebook_page(), encoding="utf-8")


def build(folder):
    """Write the site into an empty folder, build it there as `make book` does, and return where its pages stand."""
    write(folder)
    book = str(Path(sys.executable).with_name("jupyter-book"))
    command = [book, "build", ".", "--all", "-W", "-n", "--keep-going", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the fixture site does not build:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return folder / "_build" / "html"


@cache
def built():
    """Return the pages of the site, built once a process: a job of the suite."""
    folder = Path(tempfile.mkdtemp(prefix="ten-pages-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/site/fixture.py FOLDER")
    print(build(Path(sys.argv[1]).resolve()))
