"""The suite runs everything once, one engine at a time, no lane idle; and says at its end what failed, and what it did."""

import ast
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from suite import account, busy, jobs, lanes, mask
from suite.__main__ import Suite
from suite.jobs import Job

from llminfra.notebook import ledger, machine, stamp
from llminfra.notebook.chapter import ROOT, with_code

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A ledger and a lock of this test's own, whatever this run of the suite was told."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(machine.MASKED, raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def python(name, code, engine=False):
    return Job(name, [sys.executable, "-c", code], engine)


def run(*planned, **options):
    ended = []
    results = lanes.run(list(planned), ended.append, **options)
    assert ended == results
    return {one.job.name: one for one in results}


# What it consists of.


def test_every_test_file_and_every_notebook_has_its_place():
    light, heavy = jobs.tests([ROOT / "tests"])
    files = [name for job in [*light, *heavy] for name in job.command if name.startswith("tests/")]
    assert sorted(files) == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {job.name for job in heavy if job.engine} >= {"tests/test_engine.py", "tests/test_mutation.py"}
    assert {job.notebook for job in jobs.notebooks()} == set(with_code())


def test_a_file_that_starts_engines_says_so():
    """What imports `serve` or `offline` of the engine and calls it needs the lock on memory."""
    for file in jobs.test_files([ROOT / "tests"], slow=False):
        tree = ast.parse(file.read_text())
        taken = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "llminfra.engine"
            for alias in node.names
        }
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        if taken & called & {"serve", "offline"}:
            assert jobs.marker(file) == "engine", file.name


def test_labs_with_an_engine_run_once_more_on_a_masked_processor(monkeypatch):
    for name in mask.AVX2:  # as outside of a run that is masked itself
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: {"flags": ["avx2 avx512f"]}.get(key, []))
    found = jobs.notebooks()
    engines = {job.notebook for job in found if job.engine}
    assert engines == {job.notebook for job in found if job.name.endswith(" on AVX2 alone")}
    numbers = {chapter.name[:2] for chapter in engines}
    assert numbers >= {"01", "02", "03"} and "04" not in numbers, "chapter 4 searches without an engine"
    for job in found:
        masked = job.name.endswith(" on AVX2 alone")
        assert job.inputs["machine"].endswith(", avx2" if masked else ", avx2 avx512f")
        assert (job.env.get("ATEN_CPU_CAPABILITY") == "avx2") == masked
    monkeypatch.setenv(machine.MASKED, "avx2")
    assert not [job for job in jobs.notebooks() if job.name.endswith(" on AVX2 alone")], "it is masked already"


def test_the_mask_reaches_the_kernels():
    code = "import torch; print(torch.cpu._is_avx512_supported(), torch.backends.cpu.get_cpu_capability())"
    said = subprocess.run([sys.executable, "-c", code], env=mask.avx2(os.environ), capture_output=True, text=True)
    assert said.stdout.split() == ["False", "AVX2"], said


def test_a_masked_run_masks_every_job_and_runs_each_notebook_once(monkeypatch):
    for name, value in mask.avx2({}).items():
        monkeypatch.setenv(name, value)
    planned = [job for _, phase in Suite([], slow=False).plan for job in phase]
    assert {job.env["ATEN_CPU_CAPABILITY"] for job in planned} == {"avx2"}
    assert sorted(job.notebook for job in planned if job.notebook) == with_code()


def test_slow_tests_are_a_run_of_their_own():
    light, heavy = jobs.tests([ROOT / "tests"], slow=True)
    assert not light and [job.name for job in heavy] == ["tests/test_exercises.py", "tests/test_mutation.py"]
    assert all("slow" in job.command for job in heavy)


def test_tests_of_engines_stand_while_nothing_they_were_seen_to_use_has_changed(tmp_path, monkeypatch):
    """A job that reads a module through Python's import, and a file through a child, is entered with both."""
    child = "print(open('README.md').read()[:1])"
    code = f"import subprocess, sys, llminfra.web.svg; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    job = python("tests/test_x.py", code, engine=True)
    assert job.recorded and not Job("x", [], True, mask.avx2({})).recorded
    (result,) = run(job).values()
    assert {"README.md", "src/llminfra/web/svg.py"} <= result.used and "src/llminfra/cli.py" not in result.used
    inputs = {path: jobs.meaning(ROOT / path) for path in result.used}
    ledger.enter("tests", job.name, {**inputs, **jobs.common_inputs(job)}, "make test", 1)

    def stands(changed="", **common):
        def meaning(path):
            return "other" if changed and path == ROOT / changed else jobs.meaning(path)

        return ledger.recorded("tests", job.name, {**jobs.common_inputs(job), **common}, meaning)

    assert stands() and stands(changed="src/llminfra/cli.py")
    assert not stands(changed="README.md") and not stands(changed="src/llminfra/web/svg.py")
    assert not stands(command="other") and not stands(locks="other")
    chapter = tmp_path / with_code()[0].name
    monkeypatch.setattr(jobs, "with_code", lambda: [chapter])
    texts = with_code()[0].read_text(), with_code()[0].read_text() + "\nMore words.\n"
    meanings = [chapter.write_text(text) and jobs.meaning(chapter) for text in texts]
    assert meanings[0] == meanings[1], "the words of a chapter are no input of a test"


# How it runs.


def test_one_engine_at_a_time_and_no_lane_idle_meanwhile():
    short = "import time; time.sleep(0.5)"
    found = run(python("a", short, True), python("b", short, True), python("c", short), python("d", short), lanes=2)
    first, second = sorted((found["a"], found["b"]), key=lambda one: one.began)
    assert first.ended <= second.began
    plain = sorted((found["c"], found["d"]), key=lambda one: one.began)
    assert plain[0].began < first.ended and plain[0].lane != first.lane
    assert all(one.status == 0 for one in found.values())


def test_an_engine_waits_for_one_of_another_run_and_the_rest_does_not(cache):
    with open(cache / "engine.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not lanes.MemoryLock().take()
        waiting = python("engine", "pass", True)
        assert lanes._next([waiting], lanes.MemoryLock()) is None
        plain = python("plain", "pass")
        assert lanes._next([waiting, plain], lanes.MemoryLock()) is plain
    lock = lanes.MemoryLock()
    assert lock.take() and not lock.take()
    lock.release()
    assert lanes.MemoryLock().take()


def test_the_longest_begins_first(cache):
    for name, seconds in (("short", 1), ("long", 100)):
        jobs.remember(name, seconds)
    found = run(python("short", "pass"), python("long", "pass"), python("new", "pass"), lanes=1)
    assert list(found) == ["new", "long", "short"]


def test_a_failure_at_the_beginning_stops_the_rest_and_what_it_started(tmp_path):
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    long = f"{child}; open({str(tmp_path / 'up')!r}, 'w'); time.sleep(60)"
    fails = (
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'up')!r}): time.sleep(0.05)\nraise SystemExit(3)"
    )
    before = len(list(Path("/proc").glob("[0-9]*")))
    found = run(python("long", long), python("fails", fails), python("later", "pass"), lanes=2, to_the_end=False)
    assert {name: one.status for name, one in found.items()} == {"fails": 3}
    deadline = time.monotonic() + 10
    while any("time.sleep(60)" in words for words in _commands()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [words for words in _commands() if "time.sleep(60)" in words], before


def _commands():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue


def test_an_interrupt_stops_what_runs(tmp_path):
    code = f"""
import sys
from suite import lanes
from suite.__main__ import Suite
from suite.jobs import Job
with lanes.interruptible():
    lanes.run([Job("long", [sys.executable, "-c", "open({str(tmp_path / "up")!r}, 'w'); import time; time.sleep(77)"])], print)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not [words for words in _commands() if "time.sleep(77)" in words]


# What it says.

FAILING = """
from llminfra.notebook.lab import check

def test_claim():
    ratio = 1.2
    check("sixteen at once: more than 2x", lambda: ratio > 2, again=dict)

def test_other():
    assert 1 == 2

def test_covered(record_property):
    record_property("covered", ("links", "812"))
"""


def test_a_failing_run_says_what_failed_with_its_figures_and_whether_the_machine_was_busy(tmp_path):
    (tmp_path / "conftest.py").symlink_to(ROOT / "conftest.py")
    (tmp_path / "test_failing.py").write_text(FAILING)
    command = [*jobs.PYTEST, "-o", "addopts=", "-p", "nbval", "--rootdir", str(tmp_path), str(tmp_path)]
    (result,) = run(Job("failing", command)).values()
    assert result.status == 1
    assert account.ended(result).startswith("✗ failing: 2 failed, 1 passed in ")
    assert account.covered([result]) == ["links: 812"]
    watch = busy.Watch(every_s=600)  # however long the run takes to end after its tests
    watch.samples = [(result.began - 50, 9.0), (result.ended, 1.04)]
    said = "\n".join(account.failures([result], watch))
    assert "✗ sixteen at once: more than 2x" in said and "ratio = 1.2" in said and "measured again" in said
    assert "assert 1 == 2" in said
    assert said.count("the machine was busy meanwhile: other programs used 1.0") == 2
    watch.samples = [(result.ended, 0.02)]
    assert "the machine was otherwise idle: other programs used 0.0" in "\n".join(account.failures([result], watch))


def test_a_file_that_cannot_be_read_is_told_with_its_error(tmp_path):
    (tmp_path / "conftest.py").symlink_to(ROOT / "conftest.py")
    (tmp_path / "test_unread.py").write_text("import no_such_module\n")
    command = [*jobs.PYTEST, "-o", "addopts=", "-p", "nbval", "--rootdir", str(tmp_path), str(tmp_path)]
    (result,) = run(Job("unread", command)).values()
    said = account.failures([result], busy.Watch())
    assert said[0].startswith("✗ unread: test_unread.py") and "No module named 'no_such_module'" in "\n".join(said)


def test_a_job_that_dies_is_told_with_its_last_words():
    (result,) = run(python("dies", "print('last words'); raise SystemExit(9)")).values()
    said = account.failures([result], busy.Watch())
    assert said[0] == "✗ dies exited with status 9" and "last words" in said[1]


def test_the_work_of_others_is_told_from_our_own():
    spin = "while True: pass"
    ours = subprocess.Popen([sys.executable, "-c", spin])
    # Its parent ends at once, so that it is nobody's below us.
    shell = f"{shlex.quote(sys.executable)} -c '{spin}' >/dev/null 2>&1 & echo $!"
    other = int(subprocess.run(["setsid", "sh", "-c", shell], capture_output=True, text=True, check=True).stdout)
    try:
        before = after = busy.others_ticks()
        deadline = time.monotonic() + 60
        while after.get(other, 0) <= before[other] and time.monotonic() < deadline:
            time.sleep(0.2)
            after = busy.others_ticks()
    finally:
        os.kill(other, signal.SIGKILL)
        ours.kill()
        ours.wait()
    assert other in after and after[other] > before[other]
    assert ours.pid not in after and os.getpid() not in after


def test_the_account_says_where_the_time_went_and_what_stands():
    results = list(run(python("a", "pass"), python("b", "pass"), lanes=2).values())
    results[1].report = {"slowest": [["code cell 7", 61.2], ["code cell 1", 3.0]]}
    table = account.times([("environments", 180.4, []), ("first", 2.0, results)], 200)
    assert any("180  environments" in line for line in table) and any("lane" in line for line in table)
    assert "200  in all, " in table[-1] and [line.split() for line in table if "cell" in line] == [
        ["61", "code", "cell", "7"]
    ]
    job = Job("02-x on AVX2 alone", [])
    entry = ledger.Entry("2026-11-26 01:30", "make test", 245.0, {})
    results[0].report = {
        "executed": ["gates"],
        "stands": [["gates", "2026-11-26 02:00"], ["gates", "2026-11-25 08:00"]],
    }
    assert account.remembered([("01-y", "in 100 s")], [(job, entry)], results) == [
        "executed now: 01-y, in 100 s",
        "stands: 02-x on AVX2 alone, since 2026-11-26 01:30 by make test (245 s)",
        "executed now: gates of 1 pages",
        "stands: gates of 2 pages, the oldest since 2026-11-25 08:00",
    ]


def test_the_inputs_of_a_job_are_those_of_its_processor():
    chapter = with_code()[0]
    plain = jobs.inputs_now(Job("x", [], env={}, notebook=chapter))
    masked = jobs.inputs_now(Job("x", [], env=mask.avx2({}), notebook=chapter))
    assert masked["machine"].endswith(", avx2")
    assert {key for key in plain if plain[key] != masked[key]} <= {"machine"}
    assert set((stamp.read(chapter) or {}).get("files", {})) <= set(plain)
