"""What a container starts: from `docker run`, a Compose file or a manifest to the command line of the program in it.

An image may bring a command of its own: that of vLLM's official image is `vllm serve`, so what stands behind the image, in
`command:` of a Compose file or in `args:` of a manifest are arguments of the engine.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

# Images by name, whatever their registry, tag or digest, and the command that they start.
ENTRYPOINTS = {re.compile(r"(?:[\w.-]+(?::\d+)?/)*vllm/vllm-openai[\w-]*(?:[:@].+)?"): ["vllm", "serve"]}

# Options of `docker run` (https://docs.docker.com/reference/cli/docker/container/run/): those without a value, and the others.
FLAGS = {
    *("-d", "--detach", "--disable-content-trust", "--help", "--init", "-i", "--interactive", "--no-healthcheck"),
    *("--oom-kill-disable", "--privileged", "-P", "--publish-all", "-q", "--quiet", "--read-only", "--rm"),
    *("--sig-proxy", "-t", "--tty", "--use-api-socket"),
}
VALUED = {
    *("--add-host", "--annotation", "-a", "--attach", "--blkio-weight", "--blkio-weight-device", "--cap-add"),
    *("--cap-drop", "--cgroup-parent", "--cgroupns", "--cidfile", "--cpu-count", "--cpu-percent", "--cpu-period"),
    *("--cpu-quota", "--cpu-rt-period", "--cpu-rt-runtime", "-c", "--cpu-shares", "--cpus", "--cpuset-cpus"),
    *("--cpuset-mems", "--detach-keys", "--device", "--device-cgroup-rule", "--device-read-bps", "--device-read-iops"),
    *("--device-write-bps", "--device-write-iops", "--dns", "--dns-opt", "--dns-option", "--dns-search"),
    *("--domainname", "--entrypoint", "-e", "--env", "--env-file", "--expose", "--gpus", "--group-add"),
    *("--health-cmd", "--health-interval", "--health-retries", "--health-start-interval", "--health-start-period"),
    *("--health-timeout", "-h", "--hostname", "--io-maxbandwidth", "--io-maxiops", "--ip", "--ip6", "--ipc"),
    *("--isolation", "--kernel-memory", "-l", "--label", "--label-file", "--link", "--link-local-ip", "--log-driver"),
    *("--log-opt", "--mac-address", "-m", "--memory", "--memory-reservation", "--memory-swap", "--memory-swappiness"),
    *("--mount", "--name", "--net", "--net-alias", "--network", "--network-alias", "--oom-score-adj", "--pid"),
    *("--pids-limit", "--platform", "-p", "--publish", "--pull", "--restart", "--runtime", "--security-opt"),
    *("--shm-size", "--stop-signal", "--stop-timeout", "--storage-opt", "--sysctl", "--tmpfs", "--ulimit", "-u"),
    *("--user", "--userns", "--uts", "-v", "--volume", "--volume-driver", "--volumes-from", "-w", "--workdir"),
}
COMMANDS = {
    *("attach", "build", "builder", "buildx", "commit", "compose", "container", "context", "cp", "create", "diff"),
    *("events", "exec", "export", "history", "image", "images", "import", "info", "init", "inspect", "kill", "load"),
    *("login", "logout", "logs", "manifest", "model", "network", "node", "pause", "plugin", "port", "ps", "pull"),
    *("push", "rename", "restart", "rm", "rmi", "run", "save", "scout", "search", "secret", "service", "stack"),
    *("start", "stats", "stop", "swarm", "system", "tag", "top", "trust", "unpause", "update", "version", "volume"),
    *("wait", "--version", "--help"),
}


class BadDocker(ValueError):
    """A command line that `docker` would refuse; the message says why."""


def entrypoint(image: str) -> list[str]:
    """Return the command that an image brings, as far as it is known here."""
    return next((command for name, command in ENTRYPOINTS.items() if name.fullmatch(image)), [])


def docker_starts(words: list[str]) -> list[str]:
    """Return the command line that a `docker` command starts in a container, where the image or its options say which.

    Raises BadDocker for a command or an option that docker does not have, a missing value, or a missing image.
    """
    rest = words[1:]
    if rest[:1] == ["container"]:
        rest = rest[1:]
    if rest and rest[0] not in COMMANDS and not rest[0].startswith("--"):
        raise BadDocker(f"docker has no command {rest[0]}")
    if rest[:1] != ["run"]:
        return []
    start: str | None = None
    waiting = iter(enumerate(rest[1:], 1))
    for place, word in waiting:
        if word == "--" or not word.startswith("-"):
            image, *arguments = rest[place + (word == "--") :] or [""]
            command = entrypoint(image) if start is None else shlex.split(start)
            return [*command, *arguments] if command else []
        for option, value in _options(word):
            if option in VALUED and value is None:
                value = next(waiting, (0, None))[1]
                if value is None:
                    raise BadDocker(f"docker run {option} lacks its value")
            if option == "--entrypoint":
                start = value
    raise BadDocker("docker run without an image")


def _options(word: str) -> Iterator[tuple[str, str | None]]:
    """Yield (option, its value if it stands in the same word): `--name=x`, `-it`, `-p8000:8000`."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        if option not in FLAGS | VALUED:
            raise BadDocker(f"docker run has no option {option}")
        yield option, value if equals else None
        return
    for place, letter in enumerate(word[1:], 2):
        option = f"-{letter}"
        if option in VALUED:
            yield option, word[place:].removeprefix("=") or None
            return
        if option not in FLAGS:
            raise BadDocker(f"docker run has no option {option} (in {word})")
        yield option, None


def command_lines(document: dict[str, Any]) -> Iterator[tuple[list[str], str]]:
    """Yield the command line of each container of a document, and a word that stands where the container does."""
    services = document.get("services")
    if not isinstance(services, dict):
        yield from _of_manifest(document)
        return
    for service in services.values():
        if isinstance(service, dict):
            image = str(service.get("image", ""))
            command = _words(service.get("entrypoint")) or entrypoint(image)
            words = [*command, *_words(service.get("command"))]
            if words:
                yield words, image or str(words[0])


def _words(value: Any) -> list[Any]:
    """Return a command of a Compose file as words, with the defaults of its variables."""
    words = shlex.split(value) if isinstance(value, str) else value if isinstance(value, list) else []
    return [re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", word) if isinstance(word, str) else word for word in words]


def _of_manifest(part: Any) -> Iterator[tuple[list[str], str]]:
    if isinstance(part, dict):
        command, args, image = part.get("command"), part.get("args"), part.get("image")
        if isinstance(command, str):
            yield shlex.split(command), command.split()[0]
        else:
            start = command if isinstance(command, list) else entrypoint(image) if isinstance(image, str) else []
            words = [*start, *(args if isinstance(args, list) else [])]
            if words:
                yield words, str(image if not command and image else words[0])
        for value in part.values():
            yield from _of_manifest(value)
    elif isinstance(part, list):
        for value in part:
            yield from _of_manifest(value)
