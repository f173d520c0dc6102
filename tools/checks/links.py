"""Links of the built site: those inside must lead to a file and a place in it; those outside are asked on request.

`problems` needs no network. `ask` does, politely: few requests at a time, fewer to one host, HEAD before GET.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import httpx
from bs4 import BeautifulSoup, Tag
from pybtex.database import parse_file

from checks import Problem
from checks.source import ROOT

SITE = ROOT / "_build" / "html"
BIBLIOGRAPHY = ROOT / "book" / "references.bib"
ATTRIBUTES = ("href", "src", "xlink:href", "poster", "data")
AT_ONCE, PER_HOST = 8, 2
# A browser's words: some hosts turn unknown clients away.
HEADERS = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) link check of a course", "Accept": "*/*"}
DEAD, ALIVE, UNSURE = "dead", "alive", "unsure"
# Refused to a program, too many requests, or a server that is ill today: what a reader would meet can't be told.
NOT_JUDGED = {401, 403, 405, 408, 425, 429}


@dataclass(frozen=True)
class Link:
    """An address as a page of the site has it, and the line of its tag."""

    page: str
    line: int
    url: str


@dataclass(frozen=True)
class Answer:
    """What became of asking for an address: `verdict` is one of DEAD, ALIVE, UNSURE; `said` a status or an error."""

    url: str
    verdict: str
    said: str
    reached: bool


def found(site: Path) -> list[Link]:
    """Return every link of every page of a built site, in order; a page that only sends elsewhere has one, too."""
    links = []
    for file in sorted(site.rglob("*.html")):
        page = file.relative_to(site).as_posix()
        for tag in _parsed(file, file.stat().st_mtime_ns).find_all(True):
            links += [Link(page, tag.sourceline or 0, url) for url in _urls(tag)]
    return links


def _urls(tag: Tag) -> Iterator[str]:
    for name in ATTRIBUTES:
        if tag.has_attr(name):
            yield str(tag[name]).strip()
    if str(tag.get("http-equiv", "")).lower() == "refresh":
        yield str(tag.get("content", "")).partition("url=")[2].strip("'\" ")
    for candidate in str(tag.get("srcset") or "").split(","):
        if candidate.strip():
            yield candidate.split()[0]


@functools.cache
def _parsed(file: Path, _modified_ns: int) -> BeautifulSoup:
    return BeautifulSoup(file.read_bytes(), "html.parser")


def _places(file: Path) -> set[str]:
    """Return the fragments that a page has."""
    page = _parsed(file, file.stat().st_mtime_ns)
    return {str(tag["id"]) for tag in page.select("[id]")} | {str(tag["name"]) for tag in page.select("a[name]")}


# Inside.


def inner(links: Iterable[Link]) -> list[Link]:
    """Return the links that stay on the site."""
    return [link for link in links if not urlsplit(link.url).scheme and not link.url.startswith("//")]


def problems(site: Path = SITE) -> list[Problem]:
    """Return the links inside a built site that lead nowhere."""
    wrong = []
    places = functools.cache(_places)
    for link in inner(found(site)):
        path, fragment = unquote(urlsplit(link.url).path), unquote(urlsplit(link.url).fragment)
        if path.startswith("/"):
            reason = f"{link.url} counts from the host's root; the site may stand below any path"
            wrong.append(Problem(link.page, link.line, reason))
            continue
        here = (site / link.page).resolve()
        target = (here.parent / path).resolve() if path else here
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(site.resolve()) or not target.is_file():
            wrong.append(Problem(link.page, link.line, f"{link.url}: the site has no such file"))
        elif fragment and target.suffix == ".html" and fragment not in places(target):
            name = target.relative_to(site.resolve()).as_posix()
            wrong.append(Problem(link.page, link.line, f"{link.url}: {name} has no place “{fragment}”"))
    return sorted(set(wrong))


# Outside.


def outer(links: Iterable[Link], bibliography: Path = BIBLIOGRAPHY) -> dict[str, list[str]]:
    """Return every address elsewhere, without its fragment, with the pages that use it; the bibliography's among them."""
    used: dict[str, set[str]] = defaultdict(set)
    for link in links:
        url = f"https:{link.url}" if link.url.startswith("//") else link.url
        if urlsplit(url).scheme in ("http", "https"):
            used[urldefrag(url).url].add(link.page)
    for entry in parse_file(str(bibliography)).entries.values():
        if "url" in entry.fields:
            used[urldefrag(entry.fields["url"]).url].add(bibliography.name)
        if "doi" in entry.fields:
            used[f"https://doi.org/{entry.fields['doi']}"].add(bibliography.name)
    return {url: sorted(pages) for url, pages in sorted(used.items())}


async def ask(urls: Iterable[str], *, timeout_s: float = 20, pause_s: float = 2) -> list[Answer]:
    """Ask for every address and return the answers, in the order of the addresses.

    One address per host is asked first. If nobody answers, there is no internet here, and the rest is not asked.
    """
    urls = list(urls)
    by_host: dict[str, str] = {}
    for url in urls:
        by_host.setdefault(urlsplit(url).netloc, url)
    first = list(by_host.values())[:AT_ONCE]
    slots, hosts = asyncio.Semaphore(AT_ONCE), {host: asyncio.Semaphore(PER_HOST) for host in by_host}

    async def one(client: httpx.AsyncClient, url: str) -> Answer:
        async with hosts[urlsplit(url).netloc], slots:
            answer = await _answer(client, url)
            if answer.verdict != ALIVE:
                await asyncio.sleep(pause_s)
                answer = await _answer(client, url)
            return answer

    async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=True, headers=HEADERS) as client:
        answers = {answer.url: answer for answer in await asyncio.gather(*(one(client, url) for url in first))}
        if any(answer.reached for answer in answers.values()):
            rest = [url for url in urls if url not in answers]
            answers |= {answer.url: answer for answer in await asyncio.gather(*(one(client, url) for url in rest))}
    return [answers[url] for url in urls if url in answers]


async def _answer(client: httpx.AsyncClient, url: str) -> Answer:
    """Ask once: HEAD, and GET where HEAD is not answered well, as many hosts know only that."""
    answer = await _request(client, "HEAD", url)
    return answer if answer.verdict == ALIVE else await _request(client, "GET", url)


async def _request(client: httpx.AsyncClient, method: str, url: str) -> Answer:
    try:
        async with client.stream(method, url) as response:
            status = response.status_code
    except httpx.TimeoutException as error:
        return Answer(url, UNSURE, f"no answer in time ({type(error).__name__})", False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(url, DEAD, str(error) or type(error).__name__, isinstance(error, httpx.TooManyRedirects))
    if status < 400:
        return Answer(url, ALIVE, str(status), True)
    return Answer(url, UNSURE if status in NOT_JUDGED or status >= 500 else DEAD, str(status), True)
