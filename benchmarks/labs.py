"""How long an engine takes until it answers, and each chapter's notebook to run."""

import sys
import time

from llminfra import lab, models
from llminfra.engine import offline, serve
from llminfra.notebook import execute
from llminfra.notebook.chapter import chapters


def main() -> int:
    """Print the table."""
    folder, rows = models.ready(), []
    started = time.perf_counter()
    with offline(folder):
        rows.append({"what": "offline engine, with the import of vLLM", "seconds": time.perf_counter() - started})
    started = time.perf_counter()
    with offline(folder):
        rows.append({"what": "another one in the same process", "seconds": time.perf_counter() - started})
    started = time.perf_counter()
    with serve(folder):
        rows.append({"what": "server, until it has answered", "seconds": time.perf_counter() - started})
    for chapter in chapters():
        started = time.perf_counter()
        execute.execute(chapter)
        rows.append({"what": f"notebook {chapter.stem}", "seconds": time.perf_counter() - started})
    lab.table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
