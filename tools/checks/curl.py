"""`curl` command lines: their options, that a JSON body is JSON, and what the service asked says of address and body."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from checks import Faults, engine_api, line_of

# Options of curl (https://curl.se/docs/manpage.html) that pages use: those without a value, and the others.
FLAGS = {
    *("-s", "--silent", "-S", "--show-error", "-f", "--fail", "--fail-with-body", "-L", "--location", "-N"),
    *("--no-buffer", "-i", "--include", "-I", "--head", "-v", "--verbose", "-k", "--insecure", "-G", "--get", "-O"),
    *("--remote-name", "-#", "--progress-bar", "--compressed", "--http1.1", "--http2", "-g", "--globoff"),
    *("--retry-connrefused", "--retry-all-errors", "--no-progress-meter", "--create-dirs", "-4", "-6", "--version"),
}
DATA = {"-d", "--data", "--data-ascii", "--data-binary", "--data-raw", "--json"}
VALUED = {
    *DATA,
    *("-X", "--request", "-H", "--header", "-o", "--output", "-u", "--user", "-m", "--max-time", "--connect-timeout"),
    *("-w", "--write-out", "-F", "--form", "-T", "--upload-file", "-A", "--user-agent", "-b", "--cookie", "-e"),
    *("--referer", "-x", "--proxy", "--cacert", "-E", "--cert", "--key", "--retry", "--retry-delay"),
    *("--retry-max-time", "--resolve", "--unix-socket", "--url", "--data-urlencode", "--url-query", "--limit-rate"),
    *("-D", "--dump-header", "-K", "--config", "--oauth2-bearer", "--noproxy", "--parallel-max"),
}
LOCAL = {"localhost", "127.0.0.1", "0.0.0.0", "::1"}
ENGINE_PORT = 8000


class BadCurl(ValueError):
    """A command line that curl would refuse; the message says why."""


@dataclass
class Request:
    """What a command line asks: method, addresses, headers by their lower-case names, and its body with the word it stands in."""

    method: str = ""
    urls: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    body_word: int = 0


def request(words: list[str]) -> Request:
    """Return the request of a command line. Raises BadCurl for an option that curl does not have, or one without its value."""
    asked = Request()
    place = 1
    while place < len(words):
        word = words[place]
        if len(word) < 2 or word[0] != "-":
            asked.urls.append(word)
            place += 1
            continue
        option, value = _option(word)
        if option in VALUED and value is None:
            place += 1
            if place == len(words):
                raise BadCurl(f"curl {option} lacks its value")
            value = words[place]
        _take(asked, option, value or "", place)
        place += 1
    asked.method = asked.method or ("GET" if asked.body is None else "POST")
    return asked


def _option(word: str) -> tuple[str, str | None]:
    """Return the option that takes a value in a word, or the last, and the value if it stands in the word: `-sXPOST`."""
    if word.startswith("--"):
        if word not in FLAGS | VALUED:
            raise BadCurl(f"no option {word} of curl is known (tools/checks/curl.py lists them)")
        return word, None
    for place, letter in enumerate(word[1:], 2):
        option = f"-{letter}"
        if option in VALUED:
            return option, word[place:] or None
        if option not in FLAGS:
            raise BadCurl(f"no option {option} of curl is known (in {word}; tools/checks/curl.py lists them)")
        if option in ("-I", "-G"):
            return option, None
    return f"-{word[-1]}", None


def _take(asked: Request, option: str, value: str, place: int) -> None:
    if option in ("-X", "--request"):
        asked.method = value
    elif option in ("-I", "--head", "-G", "--get"):
        asked.method = "HEAD" if option in ("-I", "--head") else "GET"
    elif option in ("-F", "--form"):
        asked.method = asked.method or "POST"
    elif option in ("-H", "--header"):
        name, _, said = value.partition(":")
        asked.headers[name.strip().lower()] = said.strip()
    elif option == "--url":
        asked.urls.append(value)
    elif option in DATA:
        asked.body, asked.body_word = value, place
        if option == "--json":
            asked.headers.setdefault("content-type", "application/json")


def problems(words: list[str], lines: list[int], document: str, document_line: int) -> Faults:
    """Return what is wrong with a command line whose words stand on these lines, and which reads this here-document."""
    try:
        asked = request(words)
    except BadCurl as error:
        return [(lines[0], str(error))]
    line = lines[asked.body_word]
    body = asked.body
    if body in ("@-", "@/dev/stdin"):
        body, line = (document, document_line) if document else (None, line)
    elif body is not None and re.match(r"@|\$[\w({]+", body):
        body = None
    said = asked.headers.get("content-type", "")
    if body is not None and ("json" in said or re.match(r"\s*[{\[]", body)):
        try:
            json.loads(body)
        except json.JSONDecodeError as error:
            return [(line + error.lineno - 1, f"the body of curl is no JSON: {error.msg}")]
        answers = [answer for url in asked.urls for answer in _answer(asked.method, url, body)]
        found = [(line + max(line_of(body, f'"{key}"') - 1, 0) if key else line, reason) for key, reason in answers]
        if any(_service(url) for url in asked.urls) and "json" not in said:
            found.append((lines[0], "curl sends a form here: say `--json`, or `-H 'Content-Type: application/json'`"))
        return found
    if asked.body is not None:
        return []  # read from a file, or no JSON: only its reader could say
    return [(lines[0], reason) for url in asked.urls for _, reason in _answer(asked.method, url, None)]


def _service(url: str) -> str:
    """Return which service an address is of, "engine" or "answers"; nothing for any other."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = (parts.hostname or "").strip("${}")
    if parts.path == "/ask":
        return "answers"
    ours = host in LOCAL or host.startswith("vllm")
    if ours and parts.netloc.rpartition(":")[2] == str(ENGINE_PORT):
        return "engine"
    return "engine" if parts.path.startswith("/v1/") and _engine_serves(parts.path) else ""


def _engine_serves(path: str) -> bool:
    return any(route.path.match(path) for route in engine_api.routes())


def _answer(method: str, url: str, body: str | None) -> list[tuple[str, str]]:
    service, path = _service(url), urlsplit(url if "://" in url else f"http://{url}").path
    if service == "answers":
        return engine_api.problems(_of_answers(), method, path, body, "the service of chapter 3")
    return engine_api.problems(engine_api.routes(), method, path, body, "the engine") if service else []


@functools.cache
def _of_answers() -> list[engine_api.Route]:
    """Return the routes of the service that answers from documents."""
    from llminfra.rag.service import Question

    return [engine_api.Route(frozenset({"POST"}), re.compile("^/ask$"), Question)]
