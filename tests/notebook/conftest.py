"""A project of one tiny chapter, executed once, and copies of it that a test may break."""

import shutil
from pathlib import Path

import pytest

from llminfra.notebook import execute, ledger, stamp
from llminfra.notebook.chapter import ROOT, twin_path

TINY = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3}
---
# Tiny

```{code-cell} python3
import subprocess, sys, tempfile
from importlib import import_module
from pathlib import Path

import yaml
from llminfra.calc import tables

home = Path(tables.__file__).parents[1]
offer = tables.price("t4")  # reads data
svg = import_module("llminfra.web.svg")  # by name
none = list(home.parent.parent.joinpath("recordings").glob("*.json"))
folders = sorted(path.name for path in home.joinpath("rag", "company").iterdir())
done = subprocess.run([sys.executable, "-c", "import llminfra.web.markup"], check=True)
with tempfile.TemporaryDirectory() as folder:  # removed by descriptors: none of its names is the project's
    Path(folder, "a", "b").mkdir(parents=True)
done = subprocess.run(["grep", "-q", "price", home / "rag" / "company" / "sales" / "price-list-2026.md"])
```

```{code-cell} python3
print(6 * 7)
```
"""


class Project:
    """A project below a folder, with the one chapter `book/01-tiny.md`."""

    def __init__(self, root: Path):
        self.root = root
        self.chapter = root / "book" / "01-tiny.md"
        self.twin = twin_path(self.chapter)

    def problems(self):
        return stamp.problems(self.chapter, self.root)

    def path(self, name):
        """A file by its path in the project, below src/llminfra if it is there."""
        inside = self.root / "src" / "llminfra" / name
        return inside if inside.exists() else self.root / name

    def edit(self, name, old, new):
        text = self.path(name).read_text()
        assert old in text
        self.path(name).write_text(text.replace(old, new, 1))

    def execute(self):
        return execute.execute(self.chapter, self.root)

    def inputs(self):
        return ledger.notebook_inputs(self.chapter, self.root)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny project, executed once."""
    made = Project(tmp_path_factory.mktemp("project"))
    for folder in ("book", "notebooks"):
        (made.root / folder).mkdir()
    shutil.copytree(ROOT / "src" / "llminfra", made.root / "src" / "llminfra")
    (made.root / "tests").mkdir()
    for name in (*stamp.SETUP, ledger.SANITIZE):
        shutil.copy(ROOT / name, made.root / name)
    made.chapter.write_text(TINY)
    assert execute.write(made.execute(), made.twin)
    return made


@pytest.fixture
def project(tiny, tmp_path):
    """A copy of the tiny project that a test may break."""
    shutil.copytree(tiny.root, tmp_path / "project")
    return Project(tmp_path / "project")
