"""What the site costs its makers and its readers: build time, bytes and requests per page, Lighthouse's scores.

Performance is the median of three runs, mobile and desktop. Exits with 1 where accessibility, best practices or SEO is
below 100, or a page is above its budget.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import browser
import serve
from checks import gates, lighthouse

from llminfra import lab

RUNS = 3


def build_s() -> float:
    """Build all pages as `make book` does, and return the seconds it took."""
    book = str(Path(sys.executable).with_name("jupyter-book"))
    started = time.perf_counter()
    command = [book, "build", ".", "--all", "-W", "-n", "--keep-going", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def performance(url: str, form: str) -> int:
    """Return the median of Lighthouse's performance, 0 to 100."""
    return round(
        statistics.median(lighthouse.audit(url, ("performance",), form).scores["performance"] for _ in range(RUNS))
    )


def main() -> int:
    """Print the table."""
    print(f"build: {build_s():.1f} s")
    rows, faults = [], []
    with serve.served(serve.SITE) as address, browser.chromium() as running:
        for name in sorted(path.stem for path in (serve.SITE / "book").glob("*.html")):
            url = f"{address}/book/{name}.html"
            with gates.visit(running, url) as opened:
                requests, plain, whole = gates.transfer(opened.page)
                faults += [f"{name} {problem}" for problem in gates.light(opened.page)]
            report = lighthouse.audit(url)
            faults += [f"{name}: {fault}" for fault in report.faults]
            rows.append(
                {
                    "page": name,
                    "requests": requests,
                    "KB": round(plain / 1000),
                    "with figures": round(whole / 1000),
                    **report.scores,
                    "mobile": performance(url, "mobile"),
                    "desktop": performance(url, "desktop"),
                }
            )
    lab.table(rows)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
