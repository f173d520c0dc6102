"""What stands in the ledger is done and unchanged; an entry that would lie does not stand."""

import pytest

from llminfra.notebook import ledger, machine

LOCKS = ["requirements.txt", "requirements-torch.txt"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A ledger of this test's own, whatever this run of the suite was told."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path / "cache"))
    for name in ("LLMINFRA_FRESH", machine.MASKED):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def entered(project):
    """The tiny project, its notebook in the ledger."""
    assert ledger.standing("notebook", "01-tiny", project.inputs()) is None
    ledger.enter("notebook", "01-tiny", project.inputs(), "make test", 12.34)
    return project


def stands(project):
    return ledger.standing("notebook", "01-tiny", project.inputs())


def why(project):
    return ledger.changed("notebook", "01-tiny", project.inputs())


def test_an_unchanged_notebook_stands_and_says_since_when(entered):
    entry = stands(entered)
    assert entry.by == "make test" and entry.seconds == 12.3 and len(entry.when) == len("2026-11-26 01:30")
    assert why(entered) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("calc/tables.py", "return _loaded[name]", "return dict(_loaded[name])"),
        ("calc/data/prices.json", '"read"', '"seen"'),
        ("tests/nbval_sanitize.cfg", "regex:", "regex: x"),
    ],
)
def test_a_changed_module_does_not(entered, name, old, new):
    entered.edit(name, old, new)
    assert stands(entered) is None
    assert [path.endswith(name) for path in why(entered)] == [True]


@pytest.mark.parametrize(
    ("old", "new"), [("42", "43"), ("print(6 * 7)", "print(6 * 7 + 0)"), ('"date": "', '"date": "1')]
)
def test_a_changed_twin_does_not(entered, old, new):
    entered.edit("notebooks/01-tiny.ipynb", old, new)
    assert stands(entered) is None and "twin" in why(entered)


@pytest.mark.parametrize("lock", LOCKS)
def test_another_lock_does_not(entered, lock):
    (entered.root / lock).write_text((entered.root / lock).read_text().replace("==", "==9", 1))
    assert stands(entered) is None and "locks" in why(entered)


def test_another_processor_does_not(entered, monkeypatch):
    masked = ledger.notebook_inputs(entered.chapter, entered.root, masked="avx2")
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: {"flags": ["avx2 avx512f nothing_else"]}.get(key, []))
    assert stands(entered) is None, "an entry of one processor says nothing of another"
    for inputs in (masked, ledger.notebook_inputs(entered.chapter, entered.root, masked="avx2")):
        ledger.enter("notebook", "01-tiny", inputs, "make test", 1)
    assert stands(entered) is None, "nor does one of the same processor behind a mask"
    ledger.enter("notebook", "01-tiny", entered.inputs(), "make test", 1)
    assert stands(entered)


def test_another_python_does_not(entered, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.11.99")
    assert stands(entered) is None and why(entered) == ["Python"]


def test_fresh_lets_nothing_stand(entered, monkeypatch):
    monkeypatch.setenv("LLMINFRA_FRESH", "1")
    assert stands(entered) is None


def test_words_comments_and_layout_change_nothing(entered):
    entered.edit("calc/tables.py", "import json", "import json  # changed")
    entered.edit("notebooks/01-tiny.ipynb", "# Tiny", "# Tiny, told better")
    entered.edit("notebooks/01-tiny.ipynb", "print(6 * 7)", "print(6*7)  # the answer")
    assert stands(entered)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"when": 1}'])
def test_what_cannot_be_read_does_not_stand(entered, cache, text):
    (file,) = (cache / "ledger" / "notebook").iterdir()
    file.write_text(text)
    assert stands(entered) is None and why(entered) == []


def test_a_mask_hides_abilities(monkeypatch):
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: {"flags": ["fpu avx2 avx512f amx_bf16"]}.get(key, []))
    assert machine.abilities() == {"avx2", "avx512f", "amx_bf16"}
    monkeypatch.setenv(machine.MASKED, "avx2")
    assert machine.abilities() == {"avx2"} and machine.kind().endswith(", avx2")
