"""What a notebook's helpers promise: claims that fail with their figures, and GPU cells that never pretend."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell

from llminfra.notebook import gpucell, lab


def test_check_prints_its_claim_and_no_figure(capsys):
    ratio = 4.2
    lab.check("more than 3x", ratio > 3)
    assert capsys.readouterr().out == "✓ more than 3x\n"


def test_check_raises_with_the_condition_and_the_figures():
    ratio, bound = 2.41, 3
    with pytest.raises(lab.CheckFailed) as failed:
        lab.check("more than 3x", ratio > bound)
    text = str(failed.value)
    assert "✗ more than 3x" in text
    assert "ratio > bound" in text and "ratio = 2.41" in text and "bound = 3" in text


def test_a_claim_about_time_is_measured_twice_before_it_fails(capsys):
    rates, measured = [2, 4], []

    def again():
        measured.append(rates.pop(0))

    lab.check("more than 3x", lambda: rates[0] > 3, again=again)
    assert measured == [2] and capsys.readouterr().out == "✓ more than 3x\n"
    lab.check("more than 3x", lambda: rates[0] > 3, again=again)
    assert measured == [2], "what holds is not measured again"
    rates[:] = [2, 1, 4]
    with pytest.raises(lab.CheckFailed) as failed:
        lab.check("more than 3x", lambda: rates[0] > 3, again=again)
    assert measured == [2, 2], "twice, and no third time"
    first, second = str(failed.value).split("measured again:")
    assert "rates[0] > 3" in first and "rates = [2, 1, 4]" in first and "rates = [1, 4]" in second


def test_table_aligns_numbers(capsys):
    lab.table([{"at once": 1, "tokens/s": 41.27}, {"at once": 16, "tokens/s": 1420.4}])
    assert capsys.readouterr().out.splitlines() == ["at once  tokens/s", "      1      41.3", "     16     1,420"]


def test_run_shows_the_output_of_a_failed_program():
    with pytest.raises(lab.CheckFailed, match="no/such/file"):
        lab.run("ls", "no/such/file")
    with pytest.raises(FileNotFoundError, match="not installed"):
        lab.run("no-such-program")


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """An IPython shell without a GPU, and an empty folder of recordings."""
    monkeypatch.setattr(gpucell, "gpus", list)
    monkeypatch.setattr(gpucell, "RECORDINGS", tmp_path)
    instance = InteractiveShell()
    shown = []
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: instance)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    instance.shown = shown
    return instance


LINE = "name=02-x/throughput memory=18 needs=json"


def test_a_gpu_cell_without_recording_says_so_and_predicts(shell):
    shell.user_ns["predicted"] = "1,400 tokens/s"
    gpucell.gpu_cell(LINE + " predict=predicted", "import json\nprint(json.dumps(1))")
    (bundle,) = shell.shown
    assert "Not executed" in bundle["text/plain"] and "18 GiB" in bundle["text/plain"]
    assert "[Predicted by arithmetic, not measured]\n1,400 tokens/s" in bundle["text/plain"]
    assert 'class="gpu-prediction"' in bundle["text/html"]


def test_a_recording_is_replayed_with_its_device_and_date(shell):
    gpu = {"name": "NVIDIA A10G", "memory_mib": "23028", "driver": "550.1"}
    file = gpucell.write_recording("02-x/throughput", "1,312 tokens/s\n", gpu, ("pytest",))
    assert file.name == "throughput.a10g.json"
    gpucell.gpu_cell(LINE, "print(1)")
    (bundle,) = shell.shown
    recorded = json.loads(file.read_text())
    assert (
        f"NVIDIA A10G, driver 550.1, pytest {recorded['versions']['pytest']}, recorded {recorded['date']}"
        in (bundle["text/plain"])
    )
    assert "1,312 tokens/s" in bundle["text/plain"] and "Not executed" not in bundle["text/plain"]


def test_a_gpu_cell_runs_where_the_gpu_is(shell, monkeypatch, capsys):
    monkeypatch.setenv("LLMINFRA_RECORD", "1")
    here = [{"name": "Tesla T4", "memory_mib": "15360", "driver": "535"}]
    monkeypatch.setattr(gpucell, "gpus", lambda: here)
    gpucell.gpu_cell("name=02-x/small memory=14", "print('ran')")
    assert "ran" in capsys.readouterr().out
    (recorded,) = gpucell.recordings("02-x/small")
    assert recorded["device"] == "Tesla T4" and recorded["text"] == "ran\n"
    gpucell.gpu_cell("name=02-x/large memory=40", "print('ran')")
    assert "Not executed" in shell.shown[-1]["text/plain"]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("print(undefined_name)", "line 1 of the GPU cell uses 'undefined_name'"),
        ("import no_such_package", "imports 'no_such_package', which is not installed"),
        ("from json import no_such_function", "imports 'no_such_function' from json"),
        ("print(", "does not parse"),
    ],
)
def test_the_code_of_a_gpu_cell_is_resolved_without_a_gpu(shell, cell, reason):
    with pytest.raises(gpucell.GpuCellError, match=reason):
        gpucell.gpu_cell(LINE, cell)


@pytest.mark.parametrize(
    "cell",
    [
        "from xml import dom\nprint(dom)",
        "from json import *\nprint(dumps(1))",
        "match {'a': [1, 2], 'b': 3}:\n    case {'a': [first, *others], **rest} as whole:\n        print(first, others, rest, whole)",
    ],
)
def test_every_way_to_bind_a_name_is_known(shell, cell):
    gpucell.gpu_cell(LINE, cell)
    assert "Not executed" in shell.shown[-1]["text/plain"]


@pytest.mark.parametrize(
    ("line", "says"), [("name=x memroy=14", "memroy"), ("name=x memory=abc", "memory=abc: it must be a number of GiB")]
)
def test_a_misspelt_option_is_refused(line, says):
    with pytest.raises(gpucell.GpuCellError, match=says):
        gpucell.options(line)
