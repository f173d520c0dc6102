"""Can an exercise's grader be trusted? Grade what must fail and what must pass, and changed copies of the solution."""

from __future__ import annotations

import ast
import difflib
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from llminfra.errors import ExerciseError
from llminfra.grade import Exercise, Report, grade
from llminfra.grade.starter import BEGIN, END, problems

OPERATORS = (
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in ("Add_Sub", "Sub_Add", "Mul_Add", "Div_Mul", "FloorDiv_Mul", "Mod_Add", "Pow_Mul")
    ),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Lt_GtE", "Lt_LtE", "LtE_Gt", "LtE_Lt")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Gt_LtE", "Gt_GtE", "GtE_Lt", "GtE_Gt", "Is_IsNot", "IsNot_Is")),
    *("AddNot", "ReplaceUnaryOperator_Delete_Not", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr"),
    *(
        "ReplaceOrWithAnd",
        "ReplaceBreakWithContinue",
        "ReplaceContinueWithBreak",
        "ExceptionReplacer",
        "NumberReplacer",
    ),
    "ZeroIterationForLoop",
)
"""Of Cosmic Ray's operators those whose change a grader can be asked to see: no shift in place of a sum."""

CONSTANTS = ("None", "0", "[]", "{}")
SEED = 20261127
KILLED = 0.9


@dataclass(frozen=True)
class Mutant:
    """The solution with one place of a file changed: `name` says where and how, `text` is the changed file.

    `requirements` are those of the region that was changed: most changes are noticed there.
    """

    file: str
    name: str
    text: str
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What was found: problems, and how many mutants were killed of how many that are not equivalent."""

    problems: list[str]
    killed: int
    mutants: int


def regions(text: str) -> dict[int, tuple[str, ...]]:
    """Return the numbers of the lines that a learner writes, each with the requirements of its region."""
    found: dict[int, tuple[str, ...]] = {}
    inside: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if begin := BEGIN.match(line):
            inside = tuple(begin[3].split(", "))
        elif END.match(line):
            inside = ()
        elif inside:
            found[number] = inside
    return found


def mutants(solution: Path) -> list[Mutant]:
    """Return each change that an operator can make to the learner's lines of a solution's Python files, if it still parses."""
    found: dict[tuple[str, str], Mutant] = {}
    for path in sorted(solution.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        own, file = regions(text), path.relative_to(solution).as_posix()
        for name in OPERATORS:
            operator, occurrence = get_operator(f"core/{name}")(), 0
            while (changed := mutate_code(text, operator, occurrence)) is not None:
                occurrence += 1
                line = _first_difference(text, changed)
                if line not in own or (file, changed) in found:
                    continue
                try:
                    ast.parse(changed)
                except SyntaxError:
                    continue
                said = changed.splitlines()[line - 1].strip()
                found[file, changed] = Mutant(file, f"{file}: {said}", changed, own[line])
    return list(found.values())


def _first_difference(before: str, after: str) -> int:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((number for number, (old, new) in enumerate(pairs, 1) if old != new), 0)


def sampled(every: list[Mutant], count: int | None) -> list[Mutant]:
    """Return so many of the mutants, always the same ones; all of them for None."""
    return every if count is None or count >= len(every) else random.Random(SEED).sample(every, count)


def equivalent(exercise: Exercise) -> dict[str, str]:
    """Return the listed mutants that behave as the solution does, with the reason. Raises ExerciseError for one without."""
    file = exercise.folder / "equivalent.yml"
    listed = (yaml.safe_load(file.read_text(encoding="utf-8")) or []) if file.exists() else []
    found = {one["mutant"]: one.get("reason", "") for one in listed}
    if not all(found.values()):
        raise ExerciseError(f"{file}: each mutant must have a reason")
    return found


def wrong(exercise: Exercise) -> Iterator[tuple[str, list[str], Path]]:
    """Yield the wrong answers: a name, the requirements that each must fail, its patch."""
    for path in sorted((exercise.folder / "wrong").glob("*.patch")):
        named = re.match(r"Fails: (R\d+(?:, R\d+)*)\n", path.read_text(encoding="utf-8"))
        if not named:
            raise ExerciseError(f"{path}: must begin with a line such as 'Fails: R2, R5'")
        yield path.stem, named[1].split(", "), path


def patched(exercise: Exercise, patch: Path, folder: Path) -> Path:
    """Return a copy of the solution, in `folder`, to which the patch was applied. Raises ExerciseError."""
    copy = folder / patch.stem
    shutil.copytree(exercise.folder / "solution", copy, ignore=shutil.ignore_patterns("__pycache__"))
    applied = subprocess.run(["git", "apply", patch.resolve()], cwd=copy, capture_output=True, text=True, check=False)
    if applied.returncode:
        raise ExerciseError(f"{patch}: does not apply to the solution: {applied.stderr.strip()}")
    return copy


def constant(exercise: Exercise, value: str, folder: Path) -> Path:
    """Return a copy of the starter, in `folder`, all of whose functions return one value."""
    copy = folder / f"constant {value}".replace("'", "quote")
    shutil.copytree(exercise.folder / "starter", copy)
    for path in copy.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"^(\s*)raise NotImplementedError.*$", rf"\1return {value}", text, flags=re.M))
    return copy


def proof(exercise: Exercise, count: int | None, jobs: int = 2, seed: int = SEED) -> Proof:
    """Return what is wrong with an exercise, judged by `count` mutants of its solution (all for None), `jobs` gradings at once."""
    found, every = list(problems(exercise.folder)), [one.id for one in exercise.requirements]
    gpu = [one.id for one in exercise.requirements if one.gpu]
    here = [id for id in every if id not in gpu]
    with tempfile.TemporaryDirectory(prefix="llg-") as temporary, ThreadPoolExecutor(jobs) as pool:
        scratch = Path(temporary)
        solution = grade(exercise, exercise.folder / "solution", seed)
        found += [f"the solution fails {id}" for id in here if id not in solution.passed]
        found += [f"{exercise.name}: {note}" for note in solution.notes]
        if found:
            return Proof(found, 0, 0)
        bare = scratch / "bare"
        bare.mkdir()
        (bare / "README.md").write_text("Nothing here yet.\n")
        nothing = [exercise.folder / "starter", bare, *(constant(exercise, value, scratch) for value in CONSTANTS)]
        cases = [(path, here) for path in nothing]
        others = sorted(exercise.folder.glob("alternative*"))
        cases += [(path, []) for path in others]
        cases += [(patched(exercise, patch, scratch), named) for _, named, patch in wrong(exercise)]
        if not others or len(list(wrong(exercise))) < 5:
            found.append("it must have an alternative solution and at least five wrong answers")

        def judged(case: tuple[Path, list[str]]) -> list[str]:
            folder, expected = case
            report = grade(exercise, folder, seed)
            said = [f"{folder.name}: must fail {id}, and did not" for id in expected if id not in report.failed]
            said += [
                f"{folder.name}: must not fail {id}: {_case(report, id)}" for id in report.failed if id not in expected
            ]
            said += [f"{folder.name}: {id} was not judged" for id in report.not_run if id not in (*gpu, *expected)]
            return said + [f"{folder.name}: {note}" for note in report.notes]

        for said in pool.map(judged, cases):
            found += said
        known = equivalent(exercise)
        changed = mutants(exercise.folder / "solution")
        chosen = [one for one in sampled(changed, count) if one.name not in known]
        found += [
            f"equivalent.yml: no mutant is called {name!r}" for name in known.keys() - {one.name for one in changed}
        ]

        def survives(number: int, mutant: Mutant) -> bool:
            copy = scratch / f"mutant{number}"
            shutil.copytree(exercise.folder / "solution", copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / mutant.file).write_text(mutant.text, encoding="utf-8")
            killed = any(
                grade(exercise, copy, seed, only, first_failure=True).failed for only in (mutant.requirements, ())
            )
            shutil.rmtree(copy)
            return not killed

        alive = [
            one for one, lives in zip(chosen, pool.map(survives, range(len(chosen)), chosen), strict=True) if lives
        ]
    killed = len(chosen) - len(alive)
    if killed < KILLED * len(chosen):
        found += [f"survives: {one.name}\n{_difference(exercise, one)}" for one in alive]
        found.append(f"{killed} of {len(chosen)} mutants are killed: fewer than {KILLED:.0%}")
    return Proof(found, killed, len(chosen))


def _case(report: Report, id: str) -> str:
    case = next(one.case for one in report.verdicts if one.requirement.id == id)
    return f"given {case.given}: seen {case.seen}, expected {case.expected}" if case else "not run"


def _difference(exercise: Exercise, mutant: Mutant) -> str:
    before = (exercise.folder / "solution" / mutant.file).read_text(encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), mutant.text.splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])
