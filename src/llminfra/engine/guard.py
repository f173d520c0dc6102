"""Run a command so that nothing of it outlives who asked for it.

    python guard.py COMMAND ARGUMENT…

The command starts in a process group of its own. Whoever starts the guard holds the write end of its standard input:
when that closes, because its owner closed it or died in whatever way, every process below the guard is killed. As a
subreaper (see prctl(2)) the guard also inherits, and ends, processes whose own parent is gone. It writes the pid of the
command to standard output, passes SIGTERM on, and exits with the command's status. It needs only the standard library, so
that it is up at once.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def descendants() -> list[int]:
    """Return the pids of all living processes below this one."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(name)] = int(fields[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def end_all() -> None:
    """Kill every process below this one, again until none is left: one may have been about to fork."""
    while True:
        alive = descendants()
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        time.sleep(0.02)


def main(command: list[str]) -> int:
    """Run the command under guard and return its exit status (128 + N after signal N)."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    print(child.pid, flush=True)
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable and not os.read(0, 1):
            break
    end_all()
    status = child.poll()
    if status is None:
        return 128 + signal.SIGKILL
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
