"""Run a command within limits that it can't lift.

    python confine.py SPEC.json

SPEC is an object: `command`; `folder`, where it runs; `writable`, the folders below which it may write, or null for anywhere;
`processes`, how many processes and threads it may have, in a namespace where it signals none but its own and where all of them end
with the first, or null;
`network`, true to close every network but 127.0.0.1; `stdin` and `stdout`, files or null; `file_bytes`, the largest file that it
may write; `told`, the file that gets a list of the limits that this system does not allow. Linux gives the limits by user, pid and
network namespaces (see namespaces(7)) and by Landlock (landlock(7)). Exits with the status of the command, 128 + N after signal N.
It needs only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION, LANDLOCK_PATH_BENEATH = 1, 1
WRITE_FILE = 1 << 1
WRITES = WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # removing and making files of every kind
REFER, TRUNCATE = 1 << 13, 1 << 14  # since versions 2 and 3

libc = ctypes.CDLL(None, use_errno=True)


def called(status: int) -> int:
    """Return the result of a C function. Raises OSError if it is negative."""
    if status < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return status


def unshare(flags: int) -> None:
    """Enter new namespaces, a user namespace first, in which this user keeps his number."""
    user, group = os.getuid(), os.getgid()
    called(libc.unshare(CLONE_NEWUSER | flags))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    if flags & CLONE_NEWNET:
        with socket.socket() as loopback:
            request = struct.pack("16sh14x", b"lo", 0)
            (up,) = struct.unpack_from("h", fcntl.ioctl(loopback, SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", up | IFF_UP))


def write_only_below(folders: list[str]) -> None:
    """Refuse every write outside of these folders and of /dev, for this process and all that it starts."""
    version = called(libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION))
    handled = WRITES | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    rules = called(libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0))
    for folder, allowed in [*((folder, handled) for folder in [*folders, "/dev/shm"]), ("/dev", WRITE_FILE)]:
        opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed, opened)
        called(libc.syscall(LANDLOCK_ADD_RULE, rules, LANDLOCK_PATH_BENEATH, rule, 0))
        os.close(opened)
    called(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    called(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0))
    os.close(rules)


def exit_status(waited: int) -> int:
    """Return how a process ended, 128 + N after signal N, from what wait(2) says of it."""
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


def as_first_process(begin: Any, processes: int) -> int:
    """Fork; the child does `begin`. Reap whatever ends, pass SIGTERM on, and return the child's status.

    The namespace gets `processes` at most: by its own pid_max since Linux 6.14, and before that for any user but root.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    with contextlib.suppress(OSError), open("/proc/sys/kernel/pid_max", "w", encoding="ascii") as file:
        file.write(str(processes))
    child = os.fork()
    if child == 0:
        begin()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child:
            return exit_status(status)


def main(path: str) -> int:
    """Set the limits, run the command, and return its status."""
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    missing = []
    inner = bool(spec["processes"])
    try:
        flags = (CLONE_NEWPID if spec["processes"] else 0) | (CLONE_NEWNET if spec["network"] else 0)
        if flags:
            unshare(flags)
    except OSError as error:
        inner = False
        what = [name for name in ("processes", "network") if spec[name]]
        missing.append(f"{' and '.join(what)} are not closed off: {error.strerror}")

    def begin() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, name in ((0, "stdin"), (1, "stdout")):
            if spec[name]:
                how = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
                os.dup2(os.open(spec[name], how, 0o600), number)
        os.chdir(spec["folder"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if spec["file_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (spec["file_bytes"], spec["file_bytes"]))
        if spec["writable"] is not None:
            try:
                write_only_below(spec["writable"])
            except OSError as error:
                missing.append(f"writing is not confined to its folder: {error.strerror}")
        os.write(told, json.dumps(missing).encode())
        os.close(told)
        try:
            os.execvp(spec["command"][0], spec["command"])
        except OSError as error:
            print(f"{spec['command'][0]}: {error.strerror}", file=sys.stderr)
            os._exit(127)

    told = os.open(spec["told"], os.O_WRONLY | os.O_CREAT, 0o600)  # before Landlock closes the folder that it is in
    if inner:
        first = os.fork()
        if first == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os._exit(as_first_process(begin, spec["processes"]))
        signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGTERM))
        return exit_status(os.waitpid(first, 0)[1])
    begin()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
