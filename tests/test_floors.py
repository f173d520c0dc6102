"""A module of llminfra imports only from floors below its own, or what its own floor names."""

import ast

import pytest

from llminfra.notebook.chapter import ROOT

SOURCE = ROOT / "src" / "llminfra"
FLOORS = [
    {"calc"},
    {"models"},
    {"engine", "load", "measure", "embed", "evaluate"},
    {"gpucell", "rag"},
    {"lab", "notebook"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def units():
    """Every module or package of llminfra but the package itself."""
    return sorted(
        {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")} - {"__init__"}
    )


def imported(name):
    """The llminfra modules that a module or package imports."""
    files = [SOURCE / f"{name}.py"] if (SOURCE / f"{name}.py").is_file() else sorted((SOURCE / name).rglob("*.py"))
    for file in files:
        depth = len(file.relative_to(SOURCE).parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
                yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llminfra."):
                yield node.module.split(".")[1]


@pytest.mark.parametrize("name", units())
def test_a_module_knows_only_floors_below(name):
    for other in set(imported(name)) - {name}:
        assert FLOOR[other] < FLOOR[name], f"{name} imports {other}"
