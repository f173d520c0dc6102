"""What `llminfra grade` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..exercise import Exercise
from .classroom import failure_rates, grade_all
from .run import Report

STYLES = {"passed": "green", "failed": "red", "not run": "yellow"}


def report(exercise: Exercise, report: Report, hints: int) -> None:
    """Print each requirement, and of those that are not met what was given, seen and expected, and hints up to this step."""
    console = Console()
    table = Table("", "requirement", "", box=None, pad_edge=False)
    for one in report.verdicts:
        table.add_row(one.requirement.id, one.requirement.says, one.status, style=STYLES[one.status])
    console.print(table)
    for one in report.verdicts:
        if one.status == "passed":
            continue
        console.print(f"\n[bold]{one.requirement.id}[/bold] {one.status}", highlight=False)
        if one.case:
            said = {"input": one.case.given, "seen": one.case.seen, "expected": one.case.expected}
            for name, text in said.items():
                if text:
                    console.print(f"  {name}: {text}", markup=False, highlight=False, soft_wrap=True)
        if one.status == "failed":
            for hint in one.requirement.hints[:hints]:
                console.print(f"  hint: {hint}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    counts = f"{len(report.passed)} of {len(report.verdicts)} requirements met, {len(report.failed)} not met"
    console.print(
        f"{counts}, {len(report.not_run)} not run ({report.ran} of {report.tests} tests ran, seed {report.seed})."
    )
    for note in report.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    if report.complete:
        where = f"exercises/{exercise.name}/solution"
        console.print(f"All met. Compare with {where}, and read {where}/EXPLANATION.md.")
    elif report.failed and hints < 3:
        console.print(f"Another hint for each: llminfra grade {exercise.number} --hints {hints + 1}")


def classroom(exercise: Exercise, folder: Path, seed: int, jobs: int, as_json: bool) -> int:
    """Grade a class and print who met what, then how often each requirement was missed; returns 0."""
    console = Console(stderr=as_json)

    def done(name: str, found: dict[str, Any]) -> None:
        said = (
            found.get("error")
            or f"{len(found['passed'])} met, {len(found['failed'])} not met, {len(found['not_run'])} not run"
        )
        console.print(f"{name}: {said}", markup=False, highlight=False)

    reports = grade_all(exercise, folder, seed, jobs, done)
    rates = failure_rates(exercise, reports.values())
    if as_json:
        rated = {id: {"failed": failed, "judged": judged} for id, (failed, judged) in rates.items()}
        print(json.dumps({"exercise": exercise.name, "seed": seed, "reports": reports, "requirements": rated}))
        return 0
    table = Table("", "requirement", "not met", box=None, pad_edge=False)
    for one in exercise.requirements:
        failed, judged = rates[one.id]
        table.add_row(one.id, one.says, f"{failed} of {judged}")
    console.print(table)
    return 0
