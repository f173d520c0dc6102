"""Modules import only from floors below their own: pyproject.toml lists the floors, `make lint` holds them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llminfra.notebook.chapter import ROOT


def lint(folder):
    """What import-linter says of a copy of the package in `folder`."""
    program = Path(sys.executable).with_name("lint-imports")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and its floors, to be spoilt."""
    shutil.copytree(ROOT / "src" / "llminfra", tmp_path / "llminfra", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_its_floors(copy):
    status, said = lint(copy)
    assert status == 0, said


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("load.py", "from llminfra import cli", "llminfra.load is not allowed to import llminfra.cli"),
        ("models.py", "from . import embed", "llminfra.models is not allowed to import llminfra.embed"),
        ("stores/base.py", "import llminfra.engine", "llminfra.stores is not allowed to import llminfra.engine"),
        ("calc/cost.py", "from ..web import form", "llminfra.calc is not allowed to import llminfra.web"),
        (
            "rag/retrieve.py",
            "def late():\n    from .judgments import labels",
            "not allowed to import llminfra.rag.judgments",
        ),
        ("newcomer.py", "", "newcomer"),
    ],
)
def test_an_import_from_above_is_refused(copy, file, line, says):
    with open(copy / "llminfra" / file, "a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    status, said = lint(copy)
    assert status and says in said
