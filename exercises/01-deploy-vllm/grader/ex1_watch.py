"""Run a launcher, pass SIGTERM on to it, write its exit status to a file, and stay, so that what it left behind stays too.

    python ex1_watch.py STATUS COMMAND…

A launcher that ran alone would take everything that it started with it, since the grader's namespace ends with its first process.
"""

import os
import signal
import subprocess
import sys
import time


def main(file: str, command: list[str]) -> None:
    """Run the command, and don't end."""
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    status = child.wait()
    with open(f"{file}.part", "w", encoding="ascii") as written:
        written.write(str(status))
    os.replace(f"{file}.part", file)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
