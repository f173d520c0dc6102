"""Links inside the site lead somewhere; those outside are counted here, and asked only by `make links`."""

import asyncio
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import outside_links as command
import pytest
from checks import links

pytestmark = pytest.mark.heavy


def test_every_link_inside_the_site_leads_somewhere(hold, covered):
    assert (links.SITE / "index.html").is_file(), "nothing is built: run make book"
    hold(links.problems())
    found = links.found(links.SITE)
    used = links.outer(found)
    assert "https://docs.vllm.ai/" in used and any("references.bib" in pages for pages in used.values())
    hosts = len({url.split("/")[2] for url in used})
    covered("links", f"{len(links.inner(found))} inside the site, all lead somewhere")
    covered("links", f"{len(used)} to {hosts} other hosts, which `make links` asks")


@pytest.fixture
def site(tmp_path):
    """Return a function that writes pages, by name, as a site."""

    def site(**pages):
        for name, body in pages.items():
            path = tmp_path / "site" / f"{name.replace('__', '/')}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"<!DOCTYPE html>\n<html><body>\n{body}\n</body></html>\n", encoding="utf-8")
        return tmp_path / "site"

    return site


GOOD = """<h2 id="here">Here</h2><a name="old"></a>
<a href="#here">a</a> <a href="#old">b</a> <a href="#">top</a> <a href="">page</a> <a href="?q=1">query</a>
<a href="book/two.html#there">c</a> <a href="book/two.html?v=1">d</a> <a href="book/">folder</a>
<a href="book/two.html#caf%C3%A9">e</a> <a href="mailto:a@example.org">f</a> <a href="https://example.org/x">g</a>
<img src="data:image/gif;base64,R0lGOD"> <svg><use href="#here"></use></svg>"""


def test_good_links_pass(site, hold):
    hold(links.problems(site(index=GOOD, book__two='<p id="there" ></p><p id="café"></p>', book__index="<p>index</p>")))


BAD = {
    "no such page": ('<a href="gone.html">a</a>', "gone.html: the site has no such file"),
    "no such place": ('<a href="two.html#gone">a</a>', "two.html has no place “gone”"),
    "no such place here": ('<a href="#gone">a</a>', "index.html has no place “gone”"),
    "no such image": ('<img src="gone.png">', "gone.png: the site has no such file"),
    "no such candidate": ('<img src="two.html" srcset="two.html 1x, gone.png 2x">', "gone.png: the site has no such"),
    "no such style": ('<link rel="stylesheet" href="_static/gone.css?v=1">', "gone.css.v=1: the site has no such file"),
    "no such script": ('<script src="gone.js"></script>', "gone.js: the site has no such file"),
    "no index": ('<a href="empty/">a</a>', "empty/: the site has no such file"),
    "out of the site": ('<a href="../outside.html">a</a>', "outside.html: the site has no such file"),
    "from the root": ('<a href="/two.html">a</a>', "counts from the host's root"),
    "sent elsewhere": (
        '<meta http-equiv="refresh" content="0; url=gone.html">',
        "gone.html: the site has no such file",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_link_that_leads_nowhere_is_refused_with_page_and_line(site, name):
    body, words = BAD[name]
    made = site(index=f"<p>one</p>\n{body}", two='<p id="here"></p>')
    (made / "empty").mkdir()
    (made.parent / "outside.html").touch()
    found = links.problems(made)
    assert [(p.path, p.line) for p in found] == [("index.html", 4)]
    assert words.replace("gone.css.v", "gone.css?v") in found[0].reason


def test_links_outside_are_collected_once_with_their_pages(site, tmp_path):
    bibliography = tmp_path / "references.bib"
    bibliography.write_text(
        "@misc{a, title={A}, url={https://b.org/}}\n@misc{b, title={B}, doi={10.1/x}}\n", encoding="utf-8"
    )
    made = site(
        one='<a href="https://a.org/x#part">a</a> <a href="https://a.org/x">b</a> <a href="two.html">c</a>',
        two='<a href="https://a.org/x">a</a> <img src="//c.org/i.png"> <a href="mailto:a@b.org">m</a>',
    )
    assert links.outer(links.found(made), bibliography) == {
        "https://a.org/x": ["one.html", "two.html"],
        "https://b.org/": ["references.bib"],
        "https://c.org/i.png": ["two.html"],
        "https://doi.org/10.1/x": ["references.bib"],
    }


# Asking, on this machine only.


class Handler(BaseHTTPRequestHandler):
    """Answers by its path: /404, /head-405 (HEAD alone is refused), /301 and so on; counts who is asking at once."""

    lock, now, most, asked = threading.Lock(), Counter(), Counter(), Counter()

    def do_GET(self):
        name, host = self.path.strip("/").split("?")[0], self.headers["Host"]
        with self.lock:
            self.asked[self.command, self.path] += 1
            for key in (host, "all"):
                self.now[key] += 1
                self.most[key] = max(self.most[key], self.now[key])
        if name in ("slow", "busy"):
            time.sleep(2.5 if name == "slow" else 0.05)
        status = {"head-405": 405 if self.command == "HEAD" else 200, "loop": 302, "busy": 200, "slow": 200}.get(name)
        if name == "flaky":
            status = 503 if self.asked["GET", self.path] < 2 else 200
        with self.lock:
            for key in (host, "all"):
                self.now[key] -= 1
        self.send_response(status or int(name))
        if name in ("301", "loop"):
            self.send_header("Location", "/200" if name == "301" else "/loop")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@contextmanager
def serving(count):
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(count)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_address[1]}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No proxy, and counters at zero."""
    monkeypatch.setenv("NO_PROXY", "*")
    for counter in (Handler.now, Handler.most, Handler.asked):
        counter.clear()


def ask(*urls):
    return asyncio.run(links.ask(urls, timeout_s=1, pause_s=0.01))


VERDICTS = {
    "200": (links.ALIVE, "200"),
    "301": (links.ALIVE, "200"),
    "head-405": (links.ALIVE, "200"),
    "flaky": (links.ALIVE, "200"),
    "404": (links.DEAD, "404"),
    "410": (links.DEAD, "410"),
    "loop": (links.DEAD, "Exceeded maximum allowed redirects."),
    "403": (links.UNSURE, "403"),
    "429": (links.UNSURE, "429"),
    "503": (links.UNSURE, "503"),
    "slow": (links.UNSURE, "no answer in time (ReadTimeout)"),
}


def test_each_answer_is_judged():
    with serving(1) as (base,):
        answers = ask(*(f"{base}/{path}" for path in VERDICTS))
    assert {answer.url.rpartition("/")[2]: (answer.verdict, answer.said) for answer in answers} == VERDICTS
    assert Handler.asked["GET", "/200"] == 0, "a good answer to HEAD is enough"
    assert Handler.asked["GET", "/404"] == 2, "a bad one is asked for once more"


def test_a_host_that_is_gone_is_dead_while_others_answer():
    with serving(2) as (here, gone):
        pass
    with serving(1) as (here,):
        answers = ask(f"{here}/200", f"{gone}/200")
    assert [answer.verdict for answer in answers] == [links.ALIVE, links.DEAD]


def test_few_are_asked_at_once_and_fewer_of_one_host():
    with serving(6) as bases:
        ask(*(f"{base}/busy?{n}" for base in bases for n in range(5)))
    assert Handler.most["all"] <= links.AT_ONCE
    assert max(count for host, count in Handler.most.items() if host != "all") <= links.PER_HOST


def test_the_report_names_dead_links_with_page_and_status_and_fails(capsys):
    with serving(1) as (base,):
        used = {f"{base}/{path}": ["book/a.html", "book/b.html"] for path in ("200", "404", "403")}
        assert command.report(used, ask(*used)) == 1
    said = capsys.readouterr().out
    assert f"Dead:\n  {base}/404\n    404; on book/a.html, book/b.html\n" in said
    assert f"browser:\n  {base}/403\n    403; on" in said
    assert "3 external links: 1 dead, 1 not judged" in said


def test_the_report_passes_where_nothing_is_dead(capsys):
    with serving(1) as (base,):
        used = {f"{base}/{path}": ["a.html"] for path in ("200", "403")}
        assert command.report(used, ask(*used)) == 0
    assert "2 external links: 0 dead, 1 not judged" in capsys.readouterr().out


def test_without_internet_one_line_says_so(capsys):
    with serving(2) as gone:
        pass
    used = {f"{base}/{n}": ["a.html"] for base in gone for n in range(20)}
    answers = ask(*used)
    assert len(answers) == 2, "one of each host is asked, not all"
    assert command.report(used, answers) == 2
    assert capsys.readouterr().out == "No internet here: none of 2 hosts answers. Nothing was judged.\n"
