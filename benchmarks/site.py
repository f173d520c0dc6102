"""What the site costs its makers and its readers: the build; bytes, requests and Lighthouse's performance, a page of each kind.

Performance is the median of three runs as on a phone, and one as on a desktop. Exits with 1 where a page is below the bar on
a phone, or above its budget.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import browser
import serve
from checks import gates, lighthouse

from llminfra.notebook import lab

RUNS, BAR = 3, 95


def build_s() -> float:
    """Build all pages as `make book` does, and return the seconds it took."""
    book = str(Path(sys.executable).with_name("jupyter-book"))
    started = time.perf_counter()
    command = [book, "build", ".", "--all", "-W", "-n", "--keep-going", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def pages(site: Path) -> list[str]:
    """Return a page of each kind: the start page, a list, and of the chapters the one with most to lay out."""
    heaviest = max((site / "book").glob("[0-9][0-9]-*.html"), key=lambda page: page.stat().st_size)
    return ["index", "glossary", heaviest.stem]


def performance(url: str, form: str, runs: int = 1) -> float:
    """Return the median of Lighthouse's performance, 0 to 100."""
    scores = [lighthouse.audit(url, ("performance",), form).scores["performance"] for _ in range(runs)]
    return statistics.median(scores)


def main() -> int:
    """Print the table; return whether something is wrong."""
    print(f"build: {build_s():.1f} s")
    rows, faults = [], []
    with serve.served(serve.SITE) as address, browser.chromium() as running:
        for name in pages(serve.SITE):
            url = f"{address}/book/{name}.html"
            with gates.visit(running, url) as opened:
                requests, plain, whole = gates.transfer(opened.page)
                elements = opened.page.evaluate("document.querySelectorAll('*').length")
                faults += [f"{name} {problem}" for problem in gates.light(opened.page)]
            mobile = performance(url, "mobile", RUNS)
            if mobile < BAR:
                faults.append(f"{name}: performance {mobile:.0f} on a phone, the median of {RUNS}; the bar is {BAR}")
            rows.append(
                {
                    "page": name,
                    "requests": requests,
                    "KB": round(plain / 1000),
                    "with figures": round(whole / 1000),
                    "elements": elements,
                    "mobile": mobile,
                    "desktop": performance(url, "desktop"),
                }
            )
    lab.table(rows)
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
