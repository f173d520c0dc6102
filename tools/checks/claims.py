"""A chapter's claims: each measured cell is followed by a `check`, and each `check` can fail.

A condition that nothing measured or computed can change is refused: a literal, an expression of literals, names bound
to nothing else, and the forms that are true whatever they hold.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from checks import Problem
from checks.source import ROOT
from llminfra.notebook.chapter import as_python, code_cells, unchecked_measurements

# Compared with 0 from below, these are always true.
NEVER_NEGATIVE = {"len", "abs"}


def problems(chapter: Path, root: Path = ROOT) -> list[Problem]:
    """Return what is wrong with the claims of a chapter."""
    path = chapter.relative_to(root).as_posix()
    cells = code_cells(chapter)
    found = [
        Problem(
            path,
            cell.line,
            f"{cell.name} is measured: tag it `measured` and `nbval-ignore-output`, and let the next cell `check` what must hold",
        )
        for cell in unchecked_measurements(cells)
    ]
    trees = {cell.number: ast.parse(as_python(cell.source)) for cell in cells}
    fixed = _fixed_names(list(trees.values()))
    for cell in cells:
        body = cell.code_line
        for call in check_calls(trees[cell.number]):
            reason = idle(call, fixed)
            if reason:
                found.append(Problem(path, body + call.lineno - 1, f"`{_short(call)}`: {reason}"))
        for node in ast.walk(trees[cell.number]):
            if isinstance(node, ast.Try) and node.handlers:
                swallowed = [call for statement in node.body for call in check_calls(statement)]
                found += [
                    Problem(path, body + call.lineno - 1, f"`{_short(call)}`: the `except` around it hides its failure")
                    for call in swallowed
                ]
    return sorted(found)


def check_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of `check`, in the order of the source."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "check")
    yield from sorted(named, key=lambda call: (call.lineno, call.col_offset))


def _short(call: ast.Call) -> str:
    text = ast.unparse(call)
    return text if len(text) < 70 else text[:69] + "…"


def idle(call: ast.Call, fixed: set[str] | frozenset[str] = frozenset()) -> str:
    """Return why a `check` cannot fail, or nothing; `fixed` are names that hold only what the source spells out."""
    again = [keyword for keyword in call.keywords if keyword.arg == "again"]
    if len(call.args) != 2 or len(again) != len(call.keywords):
        return "it needs a claim and a condition"
    condition = call.args[1]
    if again and not isinstance(condition, ast.Lambda):
        return "what is measured again needs its condition as a function: `lambda: …`"
    if again and isinstance(condition, ast.Lambda):
        condition = condition.body
    if isinstance(condition, ast.Constant):
        return f"its condition is the literal {condition.value!r}"
    names = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)} - _bound_inside(condition)
    if not any(isinstance(node, ast.Call) for node in ast.walk(condition)) and names <= fixed:
        return "nothing measured or computed stands in its condition, so it cannot change"
    reason = _always_true(condition)
    return f"its condition is always true: {reason}" if reason else ""


def _bound_inside(condition: ast.expr) -> set[str]:
    """Return the names that comprehensions of a condition bind themselves."""
    targets = [node.target for node in ast.walk(condition) if isinstance(node, ast.comprehension)]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _always_true(node: ast.expr) -> str:
    """Return why an expression is true whatever its names hold, or nothing."""
    if isinstance(node, ast.Constant):
        return f"{node.value!r}" if node.value else ""
    if isinstance(node, ast.GeneratorExp | ast.Lambda | ast.JoinedStr):
        return "a generator, a function or a text is not its outcome; write all(…) or any(…)"
    if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return "a container with something in it is true; did you mean all(…)?" if ast.unparse(node)[1:-1] else ""
    if isinstance(node, ast.BoolOp):
        parts = [_always_true(part) for part in node.values]
        if isinstance(node.op, ast.Or):
            return next(filter(None, parts), "")
        return parts[0] if all(parts) else ""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return (
            "not " + repr(node.operand.value)
            if isinstance(node.operand, ast.Constant) and not node.operand.value
            else ""
        )
    if isinstance(node, ast.NamedExpr):
        return _always_true(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "bool" and node.args:
            return _always_true(node.args[0])
        if node.func.id == "isinstance" and len(node.args) == 2 and ast.unparse(node.args[1]) == "object":
            return "everything is an object"
    if isinstance(node, ast.Compare):
        return _always_compares(node)
    return ""


def _always_compares(node: ast.Compare) -> str:
    """Return why a chain of comparisons holds always: every link compares a thing with itself, or a size with 0."""
    sides = [node.left, *node.comparators]
    reasons = []
    for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
        reflexive = isinstance(operator, ast.Eq | ast.LtE | ast.GtE | ast.Is)
        if reflexive and ast.unparse(left) == ast.unparse(right):
            reasons.append(f"`{ast.unparse(left)}` is compared with itself")
        elif isinstance(operator, ast.GtE) and _is_size(left) and _is_zero(right):
            reasons.append(f"`{ast.unparse(left)}` is never below 0")
        elif isinstance(operator, ast.LtE) and _is_zero(left) and _is_size(right):
            reasons.append(f"`{ast.unparse(right)}` is never below 0")
        else:
            return ""
    return reasons[0]


def _is_size(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NEVER_NEGATIVE


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _fixed_names(trees: list[ast.Module]) -> set[str]:
    """Return the names that a chapter binds to literals only, or to such names: `ok = True`, `limit = 3 * size`."""
    values: dict[str, list[ast.expr]] = {}
    other: set[str] = set()
    nodes = [node for tree in trees for node in ast.walk(tree)]
    for node in nodes:
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            for target in node.targets:
                values.setdefault(target.id, []).append(node.value)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other.add(node.value.id)  # a method of it may change it
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Store):
            other.add(node.value.id)
    plain = {id(target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets}
    other |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in plain}
    fixed: set[str] = set()
    while True:
        more = {n for n in values.keys() - other - fixed if all(_is_fixed(value, fixed) for value in values[n])}
        if not more:
            return fixed
        fixed |= more


def _is_fixed(value: ast.expr, fixed: set[str]) -> bool:
    if any(isinstance(node, ast.Call | ast.Await | ast.comprehension) for node in ast.walk(value)):
        return False
    return all(node.id in fixed for node in ast.walk(value) if isinstance(node, ast.Name))
