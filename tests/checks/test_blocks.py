"""Every block and inline span of the course is executed or checked; the checks refuse what they should, by file, line, reason."""

import re

import pytest
from checks import blocks, shell, source, spans
from good_blocks import GOOD

# A process of its own, since it imports vLLM.
pytestmark = pytest.mark.heavy


def test_every_block_of_the_course(hold, covered):
    found, table = blocks.of_course()
    hold(found)
    for line in blocks.rows(table):
        covered("blocks", line)


def fenced(language, body, before=""):
    return f"# Title\n\n{before}```{language}\n{body}\n```\n"


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
    "no such argument below a magic": (bad("magic", "timeout=5", "time_out=5"), 9, '"time_out"'),
    "an undefined name": (bad("qdrant", "client.query", "clent.query"), 4, '"clent" is not defined'),
    "a missing import": (bad("qdrant", "from qdrant_client", "from qdrant"), 1, "qdrant"),
    "no Python": (bad("qdrant", "query=[0.1]", "query=[0.1"), 4, "no Python: closing parenthesis"),
    "a misspelt field": (bad("manifest", "resources", "resource"), 15, "refuses Deployment.*resource"),
    "a flag in a manifest": (bad("manifest", "--dtype=half", "--dtype=fp15"), 14, "vLLM refuses.*fp15"),
    "a flag behind an image in a manifest": (
        bad("arguments of an image", "--dtype=half", "--dtyp=half"),
        13,
        "vLLM refuses.*--dtyp",
    ),
    "no model behind an image": (bad("arguments of an image", "/models/m, ", ""), 12, "no model"),
    "a flag behind an image": (bad("docker", "--max-model-len", "--max-context"), 1, "vLLM refuses.*--max-context"),
    "a value behind an image": (bad("docker", "4096", "many"), 1, "vLLM refuses.*many"),
    "an option of docker": (bad("docker", "--gpus", "--gpu"), 1, "docker run has no option --gpu"),
    "a command of docker": (bad("docker", "docker run", "docker rn"), 1, "docker has no command rn"),
    "a flag in a Compose file": (bad("compose", "--port", "--prt"), 4, "vLLM refuses.*--prt"),
    "a value in a Compose file": (bad("compose", '"10"', "ten"), 8, "vLLM refuses.*num-prompts.*ten"),
    "a comma at the end of a body": (bad("chat", "16", "16,"), 7, "body of curl is no JSON"),
    "a field of a body": (bad("chat", "messages", "mesages"), 5, "the engine has no field mesages"),
    "a field within a body": (bad("chat", "content", "contents"), 5, r"no field messages\[0\].contents"),
    "a value of a body": (bad("chat", "16", '"many"'), 6, "the engine refuses the body.*max_tokens.*integer"),
    "a body that is a form": (bad("chat", "application/json", "text/plain"), 1, "--json"),
    "a path of the engine": (bad("chat", "chat/completions", "chat/completion"), 3, "the engine serves no /v1/chat/"),
    "a field of a here-document": (bad("here", "input", "inputs"), 4, "no field inputs"),
    "a comma in a here-document": (bad("here", '"two"]', '"two"],'), 5, "body of curl is no JSON"),
    "a path without a body": (bad("here", "8000/health", "8000/healthy"), 7, "the engine serves no /healthy"),
    "a body for another server": (bad("here", "4}}", "4,}}"), 7, "body of curl is no JSON"),
    "an option of curl": (bad("here", "-fsS", "-fsY"), 7, "no option -Y of curl"),
    "a field of our own service": (bad("ask", "question", "query"), 1, "the service of chapter 3 has no field query"),
    "a value of our own service": (bad("ask", "Who may sign?", "?"), 1, "at least 3 characters"),
    "a command of helm": (bad("cluster", "upgrade --install", "instal"), 1, 'helm refuses.*unknown command "instal"'),
    "a flag of helm": (bad("cluster", "--wait", "--waits"), 1, "helm refuses.*unknown flag: --waits"),
    "a command of kubectl": (bad("cluster", "apply", "aply"), 2, "kubectl refuses.*aply.*no such command"),
    "a format of kubectl": (bad("cluster", "wide", "wid"), 3, "no output format wid"),
    "a file for kubectl": (bad("cluster", "vllm.yaml", "vlm.yaml"), 2, "vlm.yaml.*no such file"),
    "a resource": (
        bad("manifest", "nvidia.com/gpu", "nvidia.com/gpus"),
        15,
        "no node offers a resource nvidia.com/gpus",
    ),
    "a share of a device": (bad("manifest", 'gpu: "1"', "gpu: 500m"), 15, "whole devices"),
    "a device without a limit": (bad("manifest", "limits:", "requests:"), 15, "nvidia.com/gpu needs a limit"),
    "a resource of a quota": (bad("quota", "nvidia.com/gpu", "nvidia.com/gpus"), 5, "no node offers"),
    "a resource of an autoscaler": (bad("autoscaler", "name: cpu", "name: nvidia.com/gpu"), 8, "an autoscaler reads"),
    "a rate of a gauge": (
        bad("rules", "vllm:num_requests_waiting", "rate(vllm:num_requests_waiting[5m])"),
        5,
        "a gauge",
    ),
    "a quantile of a counter": (
        bad(
            "promql",
            "sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[5m]))",
            "histogram_quantile(0.9, rate(vllm:num_preemptions_total[5m]))",
        ),
        1,
        "is a counter: quantiles come from",
    ),
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


@pytest.mark.parametrize("before", ["% figure: our estimate\n", "<!-- figure: our estimate -->\n"])
def test_an_excuse_of_figures_excuses_no_block(page, before):
    found, table = blocks.problems([page(fenced("json", '{"a": 1,}', before))])
    assert [(p.line, "no JSON" in p.reason) for p in found] == [(5, True)]
    found, table = blocks.problems([page(fenced("json", '{"a": 1,}', before + "% unchecked: shows the mistake\n"))])
    assert not found and table["json", "excused"] == 1


@pytest.mark.parametrize("prefix", ["sudo", "sudo -u vllm", "sudo -E", "watch -n 1", "time", "env A=b", "timeout 10s"])
def test_what_a_prefix_starts_is_judged_in_its_place(prefix):
    ((line, reason),) = shell.problems(f"{prefix} make nothing\n")
    assert line == 1 and "no target nothing" in reason
    assert shell.problems(f"{prefix} systemctl enable --now vllm\n") == []


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


def test_a_command_that_a_deployed_file_tells_its_reader_is_checked(tmp_path):
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "x.yaml").write_text(
        "# How to use it.\n#\n#   kubectl aply \\\n#     --filename x.yaml\na: 1\n"
    )
    found, _ = blocks.problems([], tmp_path)
    assert [(p.path, p.line) for p in found] == [("deploy/x.yaml", 3)] and 'command "aply"' in found[0].reason


# Inline code.


def test_every_inline_span_of_the_course_names_what_exists(hold, covered):
    found, read = spans.of_course()
    hold(found)
    covered("inline code", f"{read} flags, metrics, commands and targets")


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ("--max-num-sequences", "no program of the course has the flag --max-num-sequences"),
        ("--max-num-seqs=many", "vLLM refuses it.*many"),
        ("--dtype fp15", "vLLM refuses it.*fp15"),
        ("vllm:requests_handled_total", "no metric of the engine.*vllm:request_success_total"),
        ("vllm:handled_*", "no metric of the engine"),
        ('vllm:num_requests_waiting{pods="a"}', "no label pods"),
        ("rate(vllm:num_requests_running[5m])", "a gauge"),
        ("make nosuch", "the Makefile has no target nosuch"),
        ("make book && make nosuch", "the Makefile has no target nosuch"),
        ("make test FRSH=1", "the Makefile has no variable FRSH"),
        ("llminfra nosuch", "invalid choice: 'nosuch'"),
        (".venv/bin/llminfra plan --modle m", "--modle"),
        ("vllm srve", "vllm has no command srve"),
        ("vllm serve --max-context", "vllm serve has no flag --max-context"),
        ("vllm bench serv", "vllm bench has no serv"),
        ("kubectl aply", "kubectl refuses"),
        ("kubectl get pods -o jsn", "no output format jsn"),
        ("helm instal", "helm refuses"),
        ("docker run --gpu all", "docker run has no option --gpu"),
        ("curl http://127.0.0.1:8000/metrcs", "the engine serves no /metrcs"),
    ],
)
def test_a_span_that_names_what_does_not_exist_is_refused(span, words):
    (reason,) = spans.reasons(span)
    assert re.search(words, reason), reason


@pytest.mark.parametrize(
    "span",
    [
        *("--max-num-seqs", "--max-num-seqs 16", "--max-num-seqs N", "--no-enable-prefix-caching", "--num-prompts"),
        *("--speculative-config.method ngram", "--lora-modules name=path", "--no-deps", "--force", "--"),
        *("vllm:*", "vllm:num_requests_*", "vllm:request_success", "vllm:request_success_total", "vllm/vllm-openai"),
        *(
            "make test FRESH=1",
            "make book && make serve",
            "makefile",
            "llminfra plan",
            "llminfra record 02",
            "llminfra",
        ),
        *("vllm serve", "vllm bench serve", "kubectl apply", "kubectl rollout restart", "helm install", "docker run"),
        "curl http://127.0.0.1:8000/metrics",
    ],
)
def test_a_span_that_names_what_exists_or_nothing_passes(span):
    assert spans.reasons(span) == []


def test_a_span_is_found_on_its_line_and_not_in_code_or_roles(page):
    text = """# Title

Words and `make
nosuch`, then ``--no-such``.

- an item

  ```text
  `make fenced`
  ```
- `make listed`

| a | b |
| --- | --- |
| `--no-a\\|b` | {term}`make role` |

:::{note}
On `make noted`.
:::
"""
    found = spans.problems([page(text)])
    said = [(p.line, p.reason.partition(":")[0]) for p in found]
    assert said == [
        (3, "`make nosuch`"),
        (4, "`--no-such`"),
        (11, "`make listed`"),
        (15, "`--no-a|b`"),
        (18, "`make noted`"),
    ]


def test_an_excuse_of_code_excuses_the_spans_below_it_and_is_needed(page):
    assert not spans.problems([page("# Title\n\n% unchecked: what a reader may type by mistake\nNot `make nosuch`.\n")])
    (problem,) = spans.problems([page("# Title\n\n% figure: our estimate\nNot `make nosuch`.\n")])
    assert problem.line == 4
    (problem,) = spans.problems([page("# Title\n\n% unchecked: for nothing\nBut `make book`.\n")])
    assert "no inline code here needs its excuse" in problem.reason
