"""The `llminfra` command. What only one command needs is imported where it runs: `plan` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from .calc import memory, planner, tables
from .errors import InputError, LlminfraError


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="llminfra", description="Tools of the course LLM Infrastructure.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    notebooks = commands.add_parser("notebooks", help="execute the chapters and pages whose twin is missing or stale")
    notebooks.add_argument("chapters", nargs="*", metavar="NN", help="only these: a chapter's number, or a page's name")
    notebooks.add_argument("--force", action="store_true", help="execute also what is not stale")
    notebooks.add_argument("--check", action="store_true", help="only say what is stale; exit 1 if anything is")
    notebooks.set_defaults(run=_notebooks)

    record = commands.add_parser("record", help="on a GPU machine: run a chapter and record its %%gpu cells")
    record.add_argument("chapters", nargs="+", metavar="NN")
    record.set_defaults(run=_record)

    engine = commands.add_parser("engine", help="serve the course's model for this machine until Ctrl-C")
    engine.add_argument("--port", type=int, help="a free one if not given")
    engine.add_argument("arguments", nargs="*", metavar="name=value", help="engine arguments, such as max_num_seqs=8")
    engine.set_defaults(run=_engine)

    plan = commands.add_parser("plan", help="which GPUs, how fast, at what cost, for a model and its users")
    plan.add_argument("--model", required=True, metavar="ID", help="a published id, or its last part")
    plan.add_argument("--precision", metavar="NAME", help=f"of the weights: {', '.join(memory.PRECISIONS)}")
    plan.add_argument("--context", required=True, type=int, metavar="TOKENS", help="prompt and answer of a request")
    plan.add_argument("--users", required=True, type=int, metavar="N", help="requests that are served at the same time")
    plan.add_argument("--gpu", required=True, metavar="NAME", help=f"one of {', '.join(tables.gpus())}")
    plan.add_argument("--output", type=int, metavar="TOKENS", help="of the context, how many are generated")
    plan.add_argument("--kv-precision", metavar="NAME", help="of the KV cache; 16 bits if not given")
    plan.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that share every layer")
    plan.add_argument(
        "--pipeline-parallel", type=int, default=1, metavar="N", help="groups of GPUs that divide the layers"
    )
    plan.add_argument(
        "--gpu-memory-utilization", type=float, metavar="SHARE", help="the engine's share of a card's memory"
    )
    plan.add_argument("--max-num-seqs", type=int, metavar="N", help="requests in a step at most")
    plan.add_argument("--max-num-batched-tokens", type=int, metavar="N", help="tokens in a step at most")
    plan.add_argument("--enforce-eager", action="store_true", help="no CUDA graphs")
    plan.add_argument("--lora-adapters", type=int, metavar="N", help="LoRA adapters on the GPU at once")
    plan.add_argument("--lora-rank", type=int, metavar="N", help="their largest rank; 16 if not given")
    plan.add_argument("--json", action="store_true", help="print one object instead of a table")
    plan.set_defaults(run=_plan)

    trust = commands.add_parser("trust", help="what calc predicts against what public start-up logs report")
    trust.add_argument("--add", type=Path, metavar="LOG", help="a start-up log of vLLM: first add it as a row")
    trust.add_argument("--gpu", metavar="NAME", help="with --add: the card, which the log does not name")
    trust.add_argument("--url", metavar="URL", help="with --add: where the log can be read")
    trust.add_argument("--title", metavar="TEXT", help="with --add: what it is; the log's name if not given")
    trust.add_argument("--name", default="", metavar="TEXT", help="with --add: the row's name; made if not given")
    trust.add_argument(
        "--model", default="", metavar="NAME", help="with --add: if calc names it otherwise than the log"
    )
    trust.add_argument("--precision", default="", metavar="NAME", help="with --add: if the log does not settle it")
    trust.set_defaults(run=_trust)

    lab = commands.add_parser("lab", help="open JupyterLab on your working copies of the notebooks and exercises")
    lab.add_argument("chapters", nargs="*", metavar="NN", help="only these: a chapter's number, or a page's name")
    lab.add_argument("--reset", action="store_true", help="make the working copies of these chapters anew, and stop")
    lab.add_argument("--folder", type=Path, help="where the working copies are; lab/ if not given")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening it")
    lab.add_argument("--port", type=int, help="8888, or the next free one, if not given")
    lab.set_defaults(run=_lab)

    grade = commands.add_parser("grade", help="grade an exercise: what is met, what is not, and a hint")
    grade.add_argument("exercise", metavar="NN", help="the exercise's number")
    grade.add_argument("--folder", type=Path, metavar="DIR", help="your files; the exercise's starter/ if not given")
    grade.add_argument(
        "--class", dest="classroom", type=Path, metavar="DIR", help="a folder with one folder for each learner"
    )
    grade.add_argument("--only", nargs="+", default=[], metavar="R", help="only these requirements: R2 R5")
    grade.add_argument("--hints", type=int, choices=(1, 2, 3), default=1, help="how far the hints go")
    grade.add_argument(
        "--seed", type=int, metavar="N", help="draws the hidden inputs; a new one each time if not given"
    )
    grade.add_argument("--jobs", type=int, default=2, metavar="N", help="with --class: how many at once")
    grade.add_argument("--json", action="store_true", help="print one object instead of a table")
    grade.set_defaults(run=_grade)

    quiz = commands.add_parser("quiz", help="the questions as a paper with a key, or for a learning platform")
    quiz.add_argument("form", choices=("paper", "gift", "qti", "anki"))
    quiz.add_argument("--chapter", type=int, metavar="N", help="only this chapter's")
    quiz.add_argument("--variants", type=int, default=1, metavar="N", help="of the paper, each shuffled anew")
    quiz.add_argument(
        "--out", type=Path, default=Path("."), metavar="DIR", help="where to write; this folder if not given"
    )
    quiz.set_defaults(run=_quiz)

    starters = commands.add_parser("starters", help="derive each exercise's starter from its solution")
    starters.set_defaults(run=_starters)

    model = commands.add_parser("model", help="make the course's model ready and print its folder or id")
    model.set_defaults(run=_model)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 with one line on stderr when its input cannot be used."""
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read what it prints has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LlminfraError as error:
        print(f"llminfra: {error}", file=sys.stderr)
        return 2


def _model(_: argparse.Namespace) -> int:
    from .models import ready

    print(ready())
    return 0


def _chosen(numbers: list[str]) -> list[Path]:
    from .notebook.chapter import short_name, with_code

    every = with_code()
    if not numbers:
        return every
    by_name = {short_name(path): path for path in every}
    missing = [number for number in numbers if number.zfill(2) not in by_name]
    if missing:
        raise InputError(f"no chapter {', '.join(missing)} with code cells; there are {', '.join(by_name)}")
    return [by_name[number.zfill(2)] for number in numbers]


def _notebooks(chosen: argparse.Namespace) -> int:
    from .notebook import execute, stamp
    from .notebook.chapter import twin_path

    stale = 0
    for chapter in _chosen(chosen.chapters):
        problems = stamp.problems(chapter)
        for problem in problems:
            print(problem)
        stale += bool(problems)
        if chosen.check:
            for line in filter(None, [stamp.reported(chapter)]):
                print(line)
        elif problems or chosen.force:
            _make(chapter)
        elif execute.write(execute.with_prose(chapter), twin_path(chapter)):
            print(f"{chapter.name}: its twin has the new prose")
    if not stale:
        print("every chapter's twin speaks for it")
    return 1 if chosen.check and stale else 0


def _make(chapter: Path) -> None:
    """Execute a chapter and write its twin; where it came out as before, that is a comparison the ledger remembers."""
    import nbformat

    from .notebook import execute, ledger
    from .notebook.chapter import twin_path

    twin_file, started = twin_path(chapter), time.monotonic()
    before = nbformat.read(twin_file, 4) if twin_file.is_file() else None
    twin = execute.execute(chapter)
    seconds = time.monotonic() - started
    changed = execute.write(twin, twin_file)
    same = before is not None and execute.reproduced(before, twin)
    if same:
        ledger.enter("notebook", chapter.stem, ledger.notebook_inputs(chapter), "make notebooks", seconds)
    outputs = "with the same outputs" if same else "with new outputs, which make test compares once"
    print(f"{chapter.name}: executed in {seconds:.0f} s {outputs}, {'written' if changed else 'unchanged'}")


def _lab(chosen: argparse.Namespace) -> int:
    from .notebook import workshop
    from .notebook.chapter import ROOT

    if chosen.reset and not chosen.chapters:
        raise InputError("which chapter starts over? For example: make lab-reset NB=02")
    chapters = _chosen(chosen.chapters)
    folder = (chosen.folder or ROOT / "lab").resolve()
    for line in workshop.prepare(chapters, folder, chosen.reset):
        print(line)
    if not chosen.reset:
        first = folder / f"{chapters[0].stem}.ipynb" if chosen.chapters else None
        sys.stdout.flush()
        workshop.serve(workshop.command(folder, first, not chosen.no_browser, chosen.port))
    return 0


def _record(chosen: argparse.Namespace) -> int:
    from . import models
    from .notebook import execute, gpucell

    if not models.gpus():
        raise InputError("nvidia-smi finds no GPU on this machine: recordings are made where the %%gpu cells can run")
    os.environ["LLMINFRA_RECORD"] = "1"
    for chapter in _chosen(chosen.chapters):
        began_s = time.time()
        execute.execute(chapter)
        files = sorted((gpucell.RECORDINGS / chapter.stem).glob("*.json"))
        written = [file.name for file in files if file.stat().st_mtime >= began_s]
        what = ", ".join(written) if written else "none: no %%gpu cell of it fits this GPU and its packages"
        print(f"{chapter.name}: recorded {what}")
    return 0


def engine_arguments(words: list[str]) -> dict[str, Any]:
    """Return `name=value` words as engine arguments; `true` and `false` are flags, and a name alone is true."""
    found: dict[str, Any] = {}
    for word in words:
        name, given, value = word.partition("=")
        found[name.replace("-", "_")] = {"true": True, "false": False}.get(value.lower(), value) if given else True
    return found


def _engine(chosen: argparse.Namespace) -> int:
    from . import models
    from .engine import diagnosis, serve

    with serve(models.ready(), port=chosen.port, **engine_arguments(chosen.arguments)) as server:
        print(f"{server.model} answers at {server.base_url}; Ctrl-C stops it", flush=True)
        status = server.wait()
        if status:
            print(
                f"llminfra: the engine ended with status {status}: {diagnosis.reason(server.log(), status)}",
                file=sys.stderr,
            )
        return status


def _trust(chosen: argparse.Namespace) -> int:
    from . import trust
    from .trust import show, speed

    if chosen.add:
        _add_log(chosen)
    rows = trust.memory_rows()
    figures = [one for row in rows for one in trust.compared(row)]
    if chosen.add:
        figures = [one for one in figures if one.row == rows[-1]]
    show.figures(figures)
    if chosen.add:
        print("Added to src/llminfra/data/public_logs.json, held out. `make notebooks` refreshes the page.")
    else:
        settled = [row for row in speed.rows() if "ambiguous" not in row]
        for figure, pairs in speed.by_figure(settled).items():
            factors = sorted(speed.factor(ratio) for ratio, _ in pairs)
            print(f"{figure}: {len(pairs)} rows, median {factors[len(pairs) // 2]:.2f}x off, worst {factors[-1]:.2f}x")
        for row in rows:
            if trust.unpredicted(row):
                print(f"{row.name}: {trust.unpredicted(row)}")
    return 0


def _add_log(chosen: argparse.Namespace) -> None:
    from datetime import date

    from . import trust

    if not chosen.gpu or not chosen.url:
        raise InputError("--add needs --gpu, the card that the log is of, and --url, where it can be read")
    try:
        log = trust.parse(chosen.add.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise InputError(f"{chosen.add}: {error.strerror}") from None
    row = trust.row_of(log, chosen.gpu, chosen.name, chosen.model, chosen.precision)
    title = chosen.title or f"start-up log {chosen.add.name}"
    trust.append(row, trust.Source(title, chosen.url, date.today().isoformat()))


def _grade(chosen: argparse.Namespace) -> int:
    from . import grade
    from .grade import show

    exercise = grade.find(chosen.exercise)
    seed = grade.new_seed() if chosen.seed is None else chosen.seed
    only = [word.upper() for word in chosen.only]
    if chosen.classroom:
        if chosen.folder or only:
            raise InputError("--class grades whole folders: it goes with neither --folder nor --only")
        return show.classroom(exercise, chosen.classroom, seed, max(1, chosen.jobs), chosen.json)
    folder = chosen.folder or exercise.folder / "starter"
    report = grade.grade(exercise, folder, seed, only)
    if chosen.json:
        print(json.dumps(report.as_json()))
    else:
        show.report(exercise, report, chosen.hints)
    return 0 if report.complete else 1


def _quiz(chosen: argparse.Namespace) -> int:
    from .quiz import export
    from .quiz.bank import questions

    wanted = [one for one in questions() if chosen.chapter in (None, one.chapter)]
    if not wanted:
        raise InputError(f"no questions of chapter {chosen.chapter}")
    name = f"chapter-{chosen.chapter}" if chosen.chapter else "course"
    export.write(chosen.form, wanted, name, chosen.out, chosen.variants)
    print(f"{len(wanted)} questions of {name} as {chosen.form} in {chosen.out}")
    return 0


def _starters(_: argparse.Namespace) -> int:
    from .grade import exercises, starter

    for exercise in exercises():
        starter.write(exercise.folder)
        print(f"{exercise.name}: starter written")
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    wanted = {
        "output_tokens": chosen.output,
        "kv_precision": chosen.kv_precision,
        "tensor_parallel": chosen.tensor_parallel,
        "pipeline_parallel": chosen.pipeline_parallel,
    }
    engine = {
        "gpu_memory_utilization": chosen.gpu_memory_utilization,
        "max_num_seqs": chosen.max_num_seqs,
        "max_num_batched_tokens": chosen.max_num_batched_tokens,
        "graphs": False if chosen.enforce_eager else None,
        "lora_adapters": chosen.lora_adapters,
        "lora_rank": chosen.lora_rank,
    }
    engine = {name: value for name, value in engine.items() if value is not None}
    wanted.update(engine)
    asked = (chosen.precision, chosen.context, chosen.users)
    try:
        one = planner.plan(chosen.model, chosen.gpu, *asked, **wanted)
        if chosen.json:
            print(json.dumps(one))
        else:
            _print_plan(one, planner.compare(chosen.model, *asked, planned=one, **wanted), chosen)
            if one["fits"]:
                checkpoint = chosen.model if "/" in chosen.model else None
                words = planner.serve_words(one, chosen.context, chosen.kv_precision, checkpoint, **engine)
                print("A replica: " + " ".join(words))
    except ValueError as error:
        raise InputError(str(error)) from None
    return 0


def _print_plan(one: dict[str, Any], every: list[dict[str, Any]], chosen: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{one['model']} in {one['precision']}: {one['weights_bytes'] / 2**30:.1f} GiB of weights, "
        f"{one['kv_bytes_per_token'] / 1024:.0f} KiB of cache per token; "
        f"{chosen.users} requests of {chosen.context} tokens at once"
    )
    heads = ("GPU", "fits", "replicas", "TTFT s", "ITL ms", "tokens/s", "$/h", "$/M tokens")
    table = Table(*heads, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in every:
        marked = "*" if row.get("unverified") else ""
        size = row.get("tensor_parallel", 1) * row.get("pipeline_parallel", 1)
        name = f"{row['gpu']}{f' x{size}' if size > 1 else ''}{marked}"
        if row["fits"]:
            figures = [
                f"{row['max_concurrent']} each",
                str(row["replicas"]),
                f"{row['ttft_s']:.3f}",
                f"{1000 * row['itl_s']:.1f}",
                f"{row['tokens_per_s']:.0f}",
                *[f"{row[key]:.2f}" if row[key] else "-" for key in ("usd_per_hour", "usd_per_million_output_tokens")],
            ]
        else:
            figures = ["no"]
        table.add_row(name, *figures, style="bold" if row["gpu"] == one["gpu"] else "")
    console.print(table)
    for row in every:
        if not row["fits"]:
            console.print(f"{row['gpu']}: {row['why']}", soft_wrap=True)
    read = sorted({row["price_read"] for row in every if row["fits"] and row["price_read"]})
    notes = "Predicted from data sheets, not measured. TTFT: one prompt, no queue. $: on demand, lowest per GPU"
    console.print(f"{notes}{', read ' + read[0] if read else ''}. *: some value of GPU or price is unverified.")
