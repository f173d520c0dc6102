"""Every block of the course is executed or checked; and the check refuses what it should, by file, line and reason."""

import re

import pytest
from checks import blocks, source

# A process of its own, since it imports vLLM.
pytestmark = pytest.mark.heavy


def test_every_block_of_the_course(hold, covered):
    found, table = blocks.of_course()
    hold(found)
    for line in blocks.rows(table):
        covered("blocks", line)


def fenced(language, body, before=""):
    return f"# Title\n\n{before}```{language}\n{body}\n```\n"


DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm}
spec:
  replicas: 1
  selector: {matchLabels: {app: vllm}}
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
        - name: server
          image: vllm/vllm-openai:v0.32.0
          command: [vllm, serve, /models/m]
          args: [--dtype=half, --max-model-len=4096]
          resources: {limits: {nvidia.com/gpu: "1"}}
"""
MONITOR = """apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: vllm}
spec:
  selector: {matchLabels: {app: vllm}}
  endpoints: [{port: http, interval: 15s}]
"""
RULES = """groups:
  - name: vllm
    rules:
      - alert: Queue
        expr: vllm:num_requests_waiting > 5
        for: 1m
        labels: {severity: page}
"""
UNIT = (
    "[Unit]\nDescription=vLLM\n\n[Service]\nExecStart=/opt/vllm/bin/vllm serve /models/m --port 8000\nRestart=always\n"
)
IMAGE = (
    'FROM vllm/vllm-openai:v0.32.0\nRUN echo one && \\\n    echo two\nENTRYPOINT ["vllm", "serve"]\nCMD ["/models/m"]\n'
)
QDRANT = 'from qdrant_client import QdrantClient\n\nclient = QdrantClient(":memory:")\nclient.query_points("docs", query=[0.1])\n'
GOOD = {
    "vllm": ("bash", "export HF_HUB_OFFLINE=1\nvllm serve /models/m \\\n  --max-model-len 4096 | tee server.log"),
    "bench": ("console", "$ vllm bench serve --model m --num-prompts 10\nprinted words (\n$ make book"),
    "module": ("bash", "python -m vllm.entrypoints.openai.api_server --model m --port 8000"),
    "ours": ("bash", "llminfra notebooks 02 --force\nmake test\nkubectl apply -f deploy/kubernetes/vllm.yaml"),
    "qdrant": ("python", QDRANT),
    "httpx": ("python", "import httpx\n\nhttpx.get('http://127.0.0.1:8000/health', timeout=5)"),
    "manifest": ("yaml", DEPLOYMENT),
    "monitor": ("yaml", MONITOR),
    "rules": ("yaml", RULES),
    "promql": ("promql", "sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[5m]))\n\nup == 0"),
    "unit": ("systemd", UNIT),
    "image": ("dockerfile", IMAGE),
    "json": ("json", '{"a": [1, 2]}'),
    "toml": ("toml", "[a]\nb = 1"),
    "plain yaml": ("yaml", "a: 1\nb: [2, 3]"),
}


def test_good_blocks_pass(page, hold, monkeypatch):
    text = "# Title\n\n" + "\n".join(f"```{language}\n{body}\n```\n" for language, body in GOOD.values())
    found, table = blocks.problems([page(text)])
    hold(found)
    assert sum(count for (kind, _), count in table.items() if kind != "file of deploy/") == len(GOOD)


def bad(name, good, wrong):
    language, body = GOOD[name]
    assert body.count(good) == 1
    return language, body.replace(good, wrong)


# What is wrong, the line of its block (from 1), and words of the reason.
BAD = {
    "an invented flag": (bad("vllm", "--max-model-len", "--max-context"), 2, "vLLM refuses.*--max-context"),
    "an abbreviated flag": (bad("module", "--port", "--por"), 1, "--por"),
    "a value of the wrong type": (bad("bench", "10", "ten"), 1, "num-prompts.*'ten'"),
    "no such benchmark": (bad("bench", "bench serve", "bench chat"), 1, "vllm bench has latency"),
    "bash cannot parse": (bad("vllm", "| tee", "| | tee"), 3, "bash cannot parse it.*syntax error"),
    "no such target": (bad("ours", "make test", "make tests"), 2, "the Makefile has no target tests"),
    "no such file": (bad("ours", "vllm.yaml", "vlm.yaml"), 3, "deploy/kubernetes/vlm.yaml.*no such file"),
    "our own command": (bad("ours", "--force", "--fast"), 1, "llminfra notebooks 02 --fast"),
    "an unknown program": (bad("vllm", "tee server.log", "frobnicate"), 3, "no check knows the program `frobnicate`"),
    "a dead Qdrant call": (bad("qdrant", "query_points", "search"), 4, '"search".*QdrantClient'),
    "no such argument": (bad("httpx", "timeout=5", "time_out=5"), 3, 'No parameter named "time_out"'),
    "an undefined name": (bad("qdrant", "client.query", "clent.query"), 4, '"clent" is not defined'),
    "a missing import": (bad("qdrant", "from qdrant_client", "from qdrant"), 1, "qdrant"),
    "no Python": (bad("qdrant", "query=[0.1]", "query=[0.1"), 4, "no Python: closing parenthesis"),
    "a misspelt field": (bad("manifest", "resources", "resource"), 15, "refuses Deployment.*resource"),
    "a flag in a manifest": (bad("manifest", "--dtype=half", "--dtype=fp15"), 14, "vLLM refuses.*fp15"),
    "an unknown kind": (bad("manifest", "kind: Deployment", "kind: Deploiment"), 2, "no schema of apps/v1 Deploiment"),
    "a field of a custom resource": (
        bad("monitor", "interval", "intervall"),
        6,
        r"no field spec.endpoints\[0\].interv",
    ),
    "a custom kind": (bad("monitor", "kind: ServiceMonitor", "kind: ServiceMonitr"), 2, "has no monitoring.*Monitr"),
    "a metric that does not exist": (
        bad("rules", "vllm:num_requests_waiting", "vllm:queue_length"),
        5,
        "no metric vllm:queue_length",
    ),
    "a rule": (bad("rules", "for: 1m", "for: soon"), 0, "promtool refuses the rules.*soon"),
    "a label that does not exist": (bad("promql", "bucket[5m]", 'bucket{model="m"}[5m]'), 1, "no label model; it has"),
    "no PromQL": (bad("promql", "up == 0", "up = 0"), 3, "no PromQL"),
    "a key of a unit": (bad("unit", "Restart", "Restarts"), 6, "Restarts"),
    "a flag in a unit": (bad("unit", "--port 8000", "--prt 8000"), 5, "vLLM refuses.*--prt"),
    "an instruction": (bad("image", "RUN", "RUNS"), 2, "no instruction RUNS"),
    "the shell of an image": (bad("image", "echo two", "echo (two"), 2, "RUN: bash cannot parse"),
    "the command of an image": (
        bad("image", '["/models/m"]', '["/models/m", "--dtyp=half"]'),
        0,
        "vLLM refuses.*--dtyp",
    ),
    "no JSON": (bad("json", "2]", "2"), 1, "no JSON"),
    "no TOML": (bad("toml", "b = 1", "b = one"), 2, "no TOML"),
    "no YAML": (bad("plain yaml", "[2, 3]", "[2, 3"), 3, "no YAML"),
    "a language nobody reads": (("fortran", "PRINT *"), 0, "no check reads `fortran`"),
    "no language": (("", "words"), 0, "no check reads a block without a language"),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """All bad pages read in one run, since a run of the type checker takes seconds; problems by page."""
    root = tmp_path_factory.mktemp("bad")
    pages = []
    for number, ((language, body), _, _) in enumerate(BAD.values()):
        path = root / f"page{number}.md"
        path.write_text(fenced(language, body), encoding="utf-8")
        pages.append(source.read(path, root))
    found, _ = blocks.problems(pages)
    return {name: [p for p in found if p.path == f"page{number}.md"] for number, name in enumerate(BAD)}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_page_is_refused_with_line_and_reason(judged, name):
    _, line, words = BAD[name]
    said = judged[name]
    assert said, "nothing was said"
    assert any(re.search(words, problem.reason) for problem in said), [str(problem) for problem in said]
    assert {problem.line for problem in said} == {line + 3}, [str(problem) for problem in said]


def test_an_excuse_is_a_reason_in_the_line_above(page):
    text = fenced("fortran", "PRINT *", before="% unchecked: no compiler for it is installed\n")
    found, table = blocks.problems([page(text)])
    assert not found and table["fortran", "excused"] == 1
    found, _ = blocks.problems([page(fenced("fortran", "PRINT *", before="% unchecked:\n"))])
    assert len(found) == 1, "an excuse without a reason is none"
    found, _ = blocks.problems([page(fenced("fortran", "PRINT *", before="<!-- unchecked: none -->\n\nWords.\n\n"))])
    assert len(found) == 1, "an excuse holds for the next block only"


def test_blocks_inside_directives_and_lists_are_found(page):
    text = "# Title\n\n:::{note}\n- a list\n\n  ```bash\n  make nothing\n  ```\n:::\n"
    found, _ = blocks.problems([page(text)])
    assert [(p.line, "no target nothing" in p.reason) for p in found] == [(7, True)]


def test_a_shown_file_is_one_that_is_checked(page):
    text = "# Title\n\n```{literalinclude} ../notes.py\n:language: python\n```\n"
    made = page(text)
    assert "there is no ../notes.py" in blocks.problems([made])[0][0].reason
    shown = "# Title\n\n```{literalinclude} ../conftest.py\n:language: python\n```\n"
    made = page(shown)
    assert "nothing checks conftest.py" in blocks.problems([made])[0][0].reason
