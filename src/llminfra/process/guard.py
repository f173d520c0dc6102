"""Run a command so that nothing of it outlives who asked for it.

    python guard.py OWNER FOLDER COMMAND ARGUMENT…

The command starts in a process group of its own, with FOLDER for its temporary files. OWNER is the pid of who starts the
guard and holds the write end of its standard input. When the owner writes a byte there, or dies in whatever way, every
process below the guard is killed; as a subreaper (see prctl(2)) it also inherits, and ends, processes whose own parent is
gone. If the owner is dead, or its end of the pipe closed without a byte, as it does some time before a killed process is
gone, the guard removes FOLDER too. It writes the pid of the command to standard output, passes SIGTERM on, and exits with the
command's status. It needs only the standard library, so that it is up at once.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
TRACKER_S = 5
"""How long Python's resource tracker may take to unlink the shared memory of processes that were killed."""


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


def is_tracker(pid: int) -> bool:
    """Return whether a process is a resource tracker, which ends by itself once those it serves are gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"multiprocessing.resource_tracker" in file.read()
    except OSError:
        return False


def end_all() -> None:
    """Kill every process below this one, again until none is left: one may have been about to fork."""
    deadline = time.monotonic() + TRACKER_S
    while True:
        alive = descendants()
        for pid in alive:
            if time.monotonic() > deadline or not is_tracker(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        time.sleep(0.02)


def main(owner: int, folder: str, command: list[str]) -> int:
    """Run the command under guard and return its exit status (128 + N after signal N)."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard = os.getpid()

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before it could be told of
            os._exit(128 + signal.SIGKILL)

    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        env={**os.environ, "TMPDIR": folder},
        preexec_fn=prepare,
    )
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    with contextlib.suppress(BrokenPipeError):
        print(child.pid, flush=True)
    told = closed = False
    while child.poll() is None and os.getppid() == owner and not told and not closed:
        readable, _, _ = select.select([0], [], [], 0.1)
        told = bool(readable and os.read(0, 1))
        closed = bool(readable and not told)
    status = child.poll()
    end_all()
    if closed or os.getppid() != owner:
        shutil.rmtree(folder, ignore_errors=True)
    if status is None:
        return 128 + signal.SIGKILL
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
