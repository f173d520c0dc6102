"""How long the widgets of chapter 1 take in Chromium, served on localhost, the median of five openings.

Two bars: the planner's first result within a second of opening the page at it, and 500 simulated requests within 1.5 s.
"""

import statistics
import sys

import browser
import serve
from playwright.sync_api import Browser

PAGE = "book/01-introduction-llm-infrastructure.html"
FIRST_MS, SIMULATED_MS, RUNS = 1000, 1500, 5
FROM_START = "(name) => Math.min(...performance.getEntriesByName(name).map((one) => one.startTime + one.duration))"
ITSELF = "(name) => Math.min(...performance.getEntriesByName(name).map((one) => one.duration))"


def took_ms(running: Browser, url: str, name: str, figure: str) -> float:
    """Open a page at a widget, wait for its first result, and return a figure of its timing in milliseconds."""
    with running.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.locator(f"#{name}-widget[data-ready]").wait_for()
        return float(page.evaluate(figure, f"widget {name}"))


def main() -> int:
    """Print both medians; return how many are over their bar."""
    slow = 0
    with serve.served(serve.SITE) as address, browser.chromium() as running:
        for name, query, figure, bar in (
            ("planner", "", FROM_START, FIRST_MS),
            ("simulator", "?simulator.count=500", ITSELF, SIMULATED_MS),
        ):
            url = f"{address}/{PAGE}{query}#{name}-widget"
            runs = [took_ms(running, url, name, figure) for _ in range(RUNS)]
            median = statistics.median(runs)
            slow += median > bar
            print(f"{name}: {median:.0f} ms (of {', '.join(f'{run:.0f}' for run in sorted(runs))}), bar {bar} ms")
    return slow


if __name__ == "__main__":
    sys.exit(main())
