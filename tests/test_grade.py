"""The machinery of exercises: a submission is judged by what it does, and can't hurt who grades it."""

import json
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llminfra.errors import ExerciseError
from llminfra.exercise import of_test
from llminfra.grade import classroom, grade, read, starter, submission
from llminfra.notebook.chapter import ROOT

EXERCISE = """
title: Doubling
hours: 0–1
objectives: [F1]
limit_s: 20
requirements:
  - {id: R1, says: "double(n) returns twice n.", section: x.md#y, hints: [think, add, n + n]}
  - {id: R2, says: "python -m doubling N prints it.", section: x.md#y, hints: [think, print, print(n + n)]}
  - {id: R3, says: "double refuses text.", section: x.md#y, hints: [think, raise, TypeError]}
"""
GRADER = """
import pytest
from llminfra.grade import Raised, judge, judge_equal

def test_r1_doubles(submission, draw):
    for _ in range(3):
        n = draw.randrange(10**6)
        judge_equal(submission.call("doubling:double", n, limit_s=5), 2 * n, given=n)

def test_r2_prints(submission, draw):
    n = draw.randrange(10**6)
    ended = submission.run(["python", "-m", "doubling", str(n)], limit_s=2)
    judge(ended.out == f"{2 * n}\\n", given=n, seen=ended.out or ended.err, expected=f"{2 * n} on a line")

def test_r3_refuses(submission):
    with pytest.raises(Raised) as refused:
        submission.call("doubling:double", "7", limit_s=2)
    judge_equal(refused.value.kind, "TypeError", given="the text 7")
"""
SOLUTION = """
import sys

def double(n):
    # solution R1, R3
    # starter: raise NotImplementedError
    if not isinstance(n, int):
        raise TypeError("a number, please")
    return n + n
    # end solution

if __name__ == "__main__":
    # solution R2
    print(double(int(sys.argv[1])))
    # end solution
"""


@pytest.fixture
def exercise(tmp_path):
    folder = tmp_path / "exercises" / "09-doubling"
    (folder / "grader").mkdir(parents=True)
    (folder / "solution").mkdir()
    (folder / "exercise.yml").write_text(EXERCISE)
    (folder / "grader" / "test_doubling.py").write_text(GRADER)
    (folder / "solution" / "doubling.py").write_text(SOLUTION)
    starter.write(folder)
    return read(folder)


@pytest.fixture
def submit(tmp_path, exercise):
    """Grade a folder with this `doubling.py`; returns the report."""

    def submit(code, name="learner", **options):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "doubling.py").write_text(textwrap.dedent(code))
        return grade(exercise, folder, 7, **options)

    return submit


def seen(report, requirement):
    return next(one.case.seen for one in report.verdicts if one.requirement.id == requirement)


def test_the_solution_passes_and_its_starter_fails_everything(exercise):
    report = grade(exercise, exercise.folder / "solution", 1)
    assert (report.passed, report.failed, report.not_run, report.ran, report.complete) == (
        ["R1", "R2", "R3"],
        [],
        [],
        3,
        True,
    )
    report = grade(exercise, exercise.folder / "starter", 1)
    assert (report.passed, report.failed) == ([], ["R1", "R2", "R3"])


def test_a_starter_has_no_line_of_a_marked_region(exercise):
    text = (exercise.folder / "starter" / "doubling.py").read_text()
    assert "    # R1, R3: your code\n    raise NotImplementedError\n" in text
    assert "n + n" not in text and "solution" not in text and "TypeError" not in text
    assert starter.problems(exercise.folder) == []
    (exercise.folder / "starter" / "doubling.py").write_text("")
    (exercise.folder / "starter" / "more.py").write_text("")
    assert len(starter.problems(exercise.folder)) == 2
    with pytest.raises(ExerciseError, match="does not end"):
        starter.derived("# solution R1\npass\n")


def test_a_failure_says_what_was_given_seen_and_expected(submit):
    report = submit("def double(n):\n    return n\n")
    case = next(one.case for one in report.verdicts if one.requirement.id == "R1")
    assert case.seen == case.given != case.expected == str(2 * int(case.given))


def test_inputs_are_drawn_anew_by_the_seed(exercise, tmp_path):
    folder = tmp_path / "fixed"
    folder.mkdir()
    (folder / "doubling.py").write_text("def double(n):\n    return 0\n")
    given = {grade(exercise, folder, seed, ["R1"]).verdicts[0].case.given for seed in (1, 1, 2)}
    assert len(given) == 2


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("while True: pass", "had not ended after"),
        ("import os\nwhile True: os.fork()", "more than 64 processes"),
        ("while True: print('x' * 10000)", "more than 1 MB"),
        ("import sys\nwhile True: print('x' * 10000, file=sys.stderr)", "more than 1 MB"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "returned nothing"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
    ids=["endless", "forks", "prints", "prints errors", "kills itself", "exits"],
)
def test_what_does_not_behave_is_stopped_and_the_next_is_graded(submit, code, says):
    report = submit(code)
    assert "R1" in report.failed and says in seen(report, "R1"), seen(report, "R1")
    assert report.ran == 3 and not [note for note in report.notes if "broke" in note]
    assert submit(SOLUTION, "next").complete


def test_what_uses_too_much_memory_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "MEMORY_BYTES", 2**28)
    for name in ("work", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "work" / "greedy.py").write_text("x = []\nwhile True: x.append(bytes([1]) * 10**7)")
    with pytest.raises(submission.Stopped, match=r"more than 0\.25 GiB of memory"):
        submission.Submission(tmp_path / "work", tmp_path / "scratch").call("greedy:f")


def test_nothing_is_written_outside_of_the_folder(submit, tmp_path):
    outside = tmp_path / "outside"
    report = submit(f"open({str(outside)!r}, 'w').write('x')")
    assert not outside.exists() and "PermissionError" in seen(report, "R1")
    inside = "open('inside', 'w').write('x')\nimport tempfile\ntempfile.TemporaryFile().write(b'x')\n"
    assert submit(inside + SOLUTION, "next").complete


def test_there_is_no_network_but_127_0_0_1(submit):
    connect = "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)\n"
    assert "unreachable" in seen(submit(connect), "R1")
    local = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(s.getsockname(), 1)\n"
    assert submit(local + SOLUTION, "next").complete


def test_a_process_left_behind_is_ended(submit, tmp_path):
    code = "import subprocess\nsubprocess.Popen(['sleep', '98765'], start_new_session=True)\n"
    assert submit(code + SOLUTION).complete
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 98765" not in running


def test_a_grader_that_takes_too_long_says_how_many_have_not_run(exercise, tmp_path):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "doubling.py").write_text("import time\ntime.sleep(60)")
    report = grade(replace(exercise, limit_s=7), tmp_path / "slow", 7)
    assert report.failed[0] == "R1" and report.not_run[-1] == "R3"
    assert not report.complete and any("limit of the exercise" in note for note in report.notes)


def test_empty_and_missing_folders_are_refused(exercise, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(ExerciseError, match="no folder with files"):
            grade(exercise, folder, 1)


def test_a_broken_grader_is_not_blamed_on_the_learner(exercise):
    (exercise.folder / "grader" / "test_doubling.py").write_text("def test_r1_x(submission):\n    1 / 0\n")
    report = grade(exercise, exercise.folder / "solution", 1)
    assert any("the grader broke in test_r1_x: ZeroDivisionError" in note for note in report.notes)
    assert report.not_run == ["R2", "R3"]
    (exercise.folder / "grader" / "test_doubling.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ExerciseError, match="nothing_of_that_name"):
        grade(exercise, exercise.folder / "solution", 1)


def test_an_exercise_that_is_wrong_says_where(exercise):
    file = exercise.folder / "exercise.yml"
    for before, after, says in [
        ("[think, add, n + n]", "[think]", "R1 must have 3 hints"),
        ("id: R2", "id: R4", "must be R1, R2"),
        ("title: Doubling", "", "title"),
    ]:
        file.write_text(EXERCISE.replace(before, after))
        with pytest.raises(ExerciseError, match=says):
            read(exercise.folder)
    with pytest.raises(ExerciseError, match="names no requirement"):
        of_test("test_r7_x", ["R1"])


def test_a_class_is_graded_once_and_goes_on_where_it_was_interrupted(exercise, tmp_path):
    room = tmp_path / "class"
    for name, code in {"ada": SOLUTION, "bob": "def double(n):\n    return n\n", "eve": "while True: pass"}.items():
        (room / name).mkdir(parents=True)
        (room / name / "doubling.py").write_text(code)
    (room / "nil").mkdir()
    told = []
    reports = classroom.grade_all(exercise, room, 7, 2, lambda name, found: told.append(name))
    assert [len(report.get("passed", ())) for report in reports.values()] == [3, 0, 0, 0]
    assert "no folder with files" in reports["nil"]["error"] and sorted(told) == ["ada", "bob", "eve", "nil"]
    assert classroom.failure_rates(exercise, reports.values()) == {"R1": (2, 3), "R2": (2, 3), "R3": (2, 3)}
    (room / "bob" / "doubling.py").write_text(SOLUTION)
    began = time.monotonic()
    again = classroom.grade_all(exercise, room, 7, 2, lambda name, found: None)
    assert again["eve"] == reports["eve"] and again["bob"]["passed"] == ["R1", "R2", "R3"]
    assert time.monotonic() - began < 6  # eve alone takes more


def test_an_exercise_that_does_not_exist_is_refused_in_one_line():
    command = [Path(sys.executable).with_name("llminfra"), "grade", "99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("llminfra: no exercise '99'")


def test_a_report_is_an_object(submit):
    report = json.loads(json.dumps(submit(SOLUTION).as_json()))
    assert report["passed"] == ["R1", "R2", "R3"] and report["tests"] == report["tests_run"] == 3
