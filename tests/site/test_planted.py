"""A fault planted in the course itself, one of each kind, is found and named; the checks are those that `make test` runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import serve
from checks import blocks, claims, figures, gates, links, spans, state, sums
from test_search import COURSE, opened, wrong

from llminfra.notebook import stamp
from llminfra.notebook.chapter import ROOT

pytestmark = pytest.mark.heavy

CHAPTER, PAGE, START = "book/02-vllm-deployment.md", "book/prerequisites.md", "book/course-map.md"
COMMANDS = """docker run --gpus all vllm/vllm-openai:v0.32.0 model --max-context 4096
curl http://127.0.0.1:8000/v1/chat/completions --json '{"model": "m", "mesages": []}'
curl http://127.0.0.1:8000/v1/completions --json '{"model": "m", "prompt": "one",}'
kubectl aply --filename vllm.yaml
helm instal stack charts/stack
"""
# Prose only, so that the twin still speaks for the chapter: file, what stands there, what is put there.
PLANTED = [
    (CHAPTER, "--max-model-len 1024 --max-num-seqs 16", "--max-model-length 1024 --max-num-seqs 16"),
    (CHAPTER, "rate(vllm:num_preemptions_total[5m])", "rate(vllm:preemptions_total[5m])"),
    (CHAPTER, "rate(vllm:prefix_cache_hits_total[5m]) /", "rate(vllm:kv_cache_usage_perc[5m]) /"),
    (CHAPTER, "`--max-num-queued-reqs`", "`--max-num-queued-requests`"),
    ("deploy/kubernetes/vllm-t4.yaml", 'nvidia.com/gpu: "1"', 'nvidia.com/gpus: "1"'),
    ("README.md", "The other four", "The other five"),
    ("README.md", "`make help` lists", f"```bash\n{COMMANDS}```\n\n`make help` lists"),
    ("deploy/kubernetes/vllm.yaml", "terminationGracePeriodSeconds:", "terminationGraceSeconds:"),
    ("README.md", "make book     #", "make site     #"),
    (START, "## Exercises\n", "Users leave after 3.5 seconds.\n\n## Exercises\n"),
    (START, "## Five weeks\n", '<a href="nowhere.html#at-all">the answer</a>\n\n## Five weeks\n'),
    (PAGE, "## The machine\n", '<img src="figures/page.png" alt="page.png">\n\n## The machine\n'),
    (
        PAGE,
        "## The machine\n",
        '<script src="https://counter.example/x.js"></script>\n\n## The machine\n',
    ),
    (PAGE, "## The machine\n", '<p style="width: 700px">A paragraph as wide as a desk.</p>\n\n## The machine\n'),
    (PAGE, "## The machine\n", '<p style="color: #999">Small print that nobody can read.</p>\n\n## The machine\n'),
    (CHAPTER, "### Tool calls\n", "### Functions that a model asks for\n"),
    (START, "## Exercises\n", "In all 25 + 40 + 5 = 80.\n\n## Exercises\n"),
]
# What the run must say: file, line where one is known, and words of the reason.
SAID = {
    "an invented flag": r"02-vllm-deployment\.md:\d+: the installed vLLM refuses .*--max-model-length",
    "a metric that does not exist": r"02-vllm-deployment\.md:\d+: no metric vllm:preemptions_total .*did you mean",
    "a rate of a gauge": r"02-vllm-deployment\.md:\d+: rate of vllm:kv_cache_usage_perc\[5m\], a gauge",
    "a flag in inline code": r"02-vllm-deployment\.md:\d+: `--max-num-queued-requests`: no program of the course",
    "a resource": r"deploy/kubernetes/vllm-t4\.yaml:\d+: no node offers a resource nvidia\.com/gpus",
    "a false count": r"README\.md:\d+: “The other five.* it is \d",
    "a flag behind an image": r"README\.md:\d+: the installed vLLM refuses `vllm serve model --max-context",
    "a field of a request": r"README\.md:\d+: the engine has no field mesages",
    "a comma too many": r"README\.md:\d+: the body of curl is no JSON",
    "a command of kubectl": r"README\.md:\d+: kubectl refuses .*aply",
    "a command of helm": r"README\.md:\d+: helm refuses .*instal",
    "a misspelt field": r"deploy/kubernetes/vllm\.yaml:\d+: Kubernetes .* refuses Deployment.*terminationGraceSeconds",
    "a missing target": r"README\.md:\d+: `make site`: the Makefile has no target site",
    "a figure without source": r"course-map\.md:\d+: .*3\.5 seconds",
    "a dead link": r"course-map.*nowhere\.html",
    "an image without words": r"prerequisites: image page\.png: .*only a file name",
    "another host": r"prerequisites: asks another host for https://counter\.example/x\.js",
    "too wide for a phone": r"prerequisites: is \d+ px wide on a phone of 320 px, because of .*700px",
    "too pale to read": r"prerequisites: axe color-contrast: .*Small print",
    "a section that search lost": r"search for “tool calls”: 02-vllm-deployment#tool-calls must come first",
    "a link to a section that was renamed": r"glossary\.html:\d+: 02-vllm-deployment\.html#tool-calls: .*has no place",
    "a wrong sum": r"course-map\.md:\d+: “25 \+ 40 \+ 5 = 80”: it comes to 70",
    "a claim that cannot fail": r"02-vllm-deployment\.md:\d+: `check\('some requests were preempted', True\)`: .*literal True",
}  # fmt: skip


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course with the faults planted in it."""
    root = tmp_path_factory.mktemp("planted")
    for name in ("_config.yml", "_toc.yml", "README.md", "CONTRIBUTING.md", "Makefile", *stamp.SETUP):
        shutil.copy(ROOT / name, root / name)
    for name in ("book", "notebooks", "src", "deploy", "exercises", "quiz", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    for name, before, after in PLANTED:
        text = (root / name).read_text(encoding="utf-8")
        assert before in text, f"{name} has no {before!r} to plant a fault in"
        (root / name).write_text(text.replace(before, after, 1), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def said(course, chromium):
    """All that the checks say of it, a line each."""
    found = [
        *blocks.of_course(course)[0],
        *spans.of_course(course)[0],
        *figures.of_course(course)[0],
        *state.problems(course),
        *sums.of_course(course)[0],
    ]
    book = str(Path(sys.executable).with_name("jupyter-book"))
    command = [book, "build", ".", "--quiet"]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    site = course / "_build" / "html"
    found += links.problems(site)
    with serve.served(site) as address:
        found += gates.inspect(chromium, address, "book/prerequisites")
        with opened(chromium, f"{address}/book/index.html") as page:
            page.keyboard.press("/")
            lost = wrong(page, {"tool calls": COURSE["tool calls"]})
    # A changed cell would make the twin stale, and the build tell only of that.
    chapter = course / CHAPTER
    text = chapter.read_text(encoding="utf-8")
    claim = re.sub(r'(check\("some requests were preempted", ).*\)\n', r"\1True)\n", text)
    assert claim != text
    chapter.write_text(claim, encoding="utf-8")
    return "\n".join(map(str, [*found, *lost, *claims.problems(chapter, course)]))


@pytest.mark.parametrize("fault", SAID)
def test_a_planted_fault_is_named(said, fault):
    assert re.search(SAID[fault], said), said


def test_nothing_else_is(said, covered):
    strange = [line for line in said.splitlines() if not any(re.search(words, line) for words in SAID.values())]
    assert not strange, "\n".join(strange)
    covered("planted faults", f"{len(SAID)} in the course itself, each named with its place")
