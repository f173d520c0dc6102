"""Ask for every external link of the built site and of the bibliography: `make links`. Needs the internet."""

from __future__ import annotations

import asyncio
import sys

from checks import links


def report(used: dict[str, list[str]], answers: list[links.Answer]) -> int:
    """Print what was found; return 0, 1 if a link is dead, or 2 if nobody answered."""
    if answers and not any(answer.reached for answer in answers):
        print(f"No internet here: none of {len(answers)} hosts answers. Nothing was judged.")
        return 2
    counts = {}
    for verdict, title in (
        (links.DEAD, "Dead"),
        (links.UNSURE, "Can't be judged by a program; open them in a browser"),
    ):
        chosen = [answer for answer in answers if answer.verdict == verdict]
        counts[verdict] = len(chosen)
        if chosen:
            print(f"{title}:")
        for answer in chosen:
            print(f"  {answer.url}\n    {answer.said}; on {', '.join(used[answer.url])}")
    print(f"{len(answers)} external links: {counts[links.DEAD]} dead, {counts[links.UNSURE]} not judged")
    return 1 if counts[links.DEAD] else 0


def main() -> int:
    """Ask and report; 2 with one line if nothing is built."""
    if not (links.SITE / "index.html").is_file():
        print("Nothing is built yet: run make book", file=sys.stderr)
        return 2
    used = links.outer(links.found(links.SITE))
    return report(used, asyncio.run(links.ask(used)))


if __name__ == "__main__":
    sys.exit(main())
