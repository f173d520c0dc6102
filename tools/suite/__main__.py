"""Run the suite: `python -m suite`, as `make test` does, or only what is below some paths, as `make check` does."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from llminfra.notebook import ledger, record, stamp
from llminfra.notebook.chapter import ROOT, with_code
from suite import account, jobs, lanes, mask
from suite.busy import Watch
from suite.jobs import Job

FIRST = "lint, site and light tests"
"""What costs a minute comes first, so that a typing error does not cost an hour."""


def main() -> int:
    """Run jobs phase by phase and give an account; returns 0, 1 if anything failed, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="suite", description="Run the tests in lanes.")
    parser.add_argument("--slow", action="store_true", help="only what make test leaves out")
    parser.add_argument(
        "paths", nargs="*", type=Path, help="test files and folders, from the root; everything, with notebooks, if none"
    )
    chosen = parser.parse_args()
    if os.environ.get("PROCESSOR") == "avx2":
        os.environ.update(mask.avx2(os.environ))
    elif os.environ.get("PROCESSOR"):
        print(f"PROCESSOR={os.environ['PROCESSOR']}: the only mask is avx2", file=sys.stderr)
        return 2
    try:
        with lanes.interruptible():
            return Suite(chosen.paths, chosen.slow).run()
    except KeyboardInterrupt:
        print("interrupted; what ran is stopped", file=sys.stderr)
        return 130


class Suite:
    """One run: what it did so far, and what it says of it."""

    def __init__(self, paths: list[Path], slow: bool):
        self.began = float(os.environ.get("LLMINFRA_BEGAN") or time.time())
        self.whole = whole = not paths and not slow
        lint, site, data = (
            Job(name, ["make", "--no-print-directory", "--silent", target])
            for name, target in (("lint", "lint"), ("site", "book"), ("data", "data"))
        )
        light, heavy = jobs.tests([ROOT / path for path in paths] or [ROOT / "tests"], slow)
        twins = jobs.notebooks() if whole else []
        standing = [(job, ledger.standing("notebook", job.notebook.stem, job.inputs)) for job in twins if job.notebook]
        seen = [job for job in heavy if job.recorded and whole]
        standing += [(job, ledger.recorded("tests", job.name, jobs.common_inputs(job), jobs.meaning)) for job in seen]
        self.stands = [(job, entry) for job, entry in standing if entry]
        again = [job for job, entry in standing if not entry]
        again += [job for job in heavy if job not in seen]
        self.plan = [
            (FIRST, [*([lint, site] if whole else []), *light]),
            ("data", [data] if whole else []),
            ("notebooks and heavy tests" if whole else "heavy tests", again),
        ]
        self.phases: list[tuple[str, float, list[lanes.Result]]] = []
        self.executed: list[tuple[str, str]] = []

    def run(self) -> int:
        """Run phase by phase, stop at the first that fails, and give the account."""
        if "LLMINFRA_BEGAN" in os.environ:
            self.phases.append(("environments", time.time() - self.began, []))
        with Watch() as watch:
            for name, planned in self.plan:
                if planned:
                    started = time.time()
                    results = lanes.run(planned, self.done, to_the_end=name != FIRST)
                    self.phases.append((name, time.time() - started, results))
                    if any(one.status for one in results):
                        break
            return self.account(watch)

    def done(self, result: lanes.Result) -> None:
        """Say how a job ended, and keep what may be kept."""
        print(account.ended(result), flush=True)
        job = result.job
        if result.status:
            print(result.log, flush=True)
            return
        jobs.remember(job.name, result.seconds)
        if job.notebook:
            self.executed.append((job.name, f"in {result.seconds:.0f} s{_because(job)}"))
            if jobs.inputs_now(job) == job.inputs:  # else what ran is not what will be asked about
                ledger.enter("notebook", job.notebook.stem, job.inputs, "make test", result.seconds)
        elif job.recorded and self.whole and not record.changed(result.used, ROOT, result.began):
            self.executed.append((job.name, f"in {result.seconds:.0f} s"))
            inputs = {**{path: jobs.meaning(ROOT / path) for path in result.used}, **jobs.common_inputs(job)}
            ledger.enter("tests", job.name, inputs, "make test", result.seconds)

    def account(self, watch: Watch) -> int:
        """Print what the run covered, where its time went, what stands, and last what failed."""
        results = [one for _, _, phase in self.phases for one in phase]
        failed = account.failures(results, watch)
        sections = {
            "covered": [*account.covered(results), *account.skipped(results)],
            "where the time went": account.times(self.phases, time.time() - self.began),
            "executed and standing": [
                *account.remembered(self.executed, self.stands, results),
                *filter(None, map(stamp.reported, with_code())),
            ],
            "failed": failed,
        }
        for title, lines in sections.items():
            if lines:
                print(f"\n== {title}", *lines, sep="\n", flush=True)
        return 1 if failed else 0


def _because(job: Job) -> str:
    """Return why a notebook was executed again, where there was an entry for it."""
    assert job.notebook
    changed = ledger.changed("notebook", job.notebook.stem, job.inputs)
    return f", since {', '.join(changed[:3])} changed" if changed else ""


if __name__ == "__main__":
    sys.exit(main())
