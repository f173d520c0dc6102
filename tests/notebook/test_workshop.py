"""`make lab`: working copies that a learner may change, and JupyterLab on them in a real browser."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import browser
import httpx
import nbformat
import psutil
import pytest

from llminfra import cli
from llminfra.errors import InputError
from llminfra.notebook import workshop
from llminfra.notebook.chapter import ROOT, chapters, twin_path
from llminfra.notebook.readable import Site, readable

pytestmark = pytest.mark.heavy

SITE = Site("/static/book", "01-first")


@pytest.mark.parametrize("chapter", chapters(), ids=lambda path: path.stem)
def test_a_working_copy_has_the_cells_of_its_twin_and_none_of_its_outputs(chapter):
    made, twin = workshop.working_copy(chapter), nbformat.read(twin_path(chapter), 4)
    nbformat.validate(made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == [cell.source for cell in twin.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert f"/static/book/{chapter.stem}.html" in made.cells[0].source
    prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    for left in ("{term}", "{cite}", "{ref}", "{figure}", "{widget}", "{dropdown}", "{note}", ":::", ")=\n"):
        assert left not in prose, left
    assert "\n% " not in prose and not re.search(r"\]\((?!https?:)[^)]*\.md\b", prose)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("{term}`tokens <Token>` and {term}`prefill`", "tokens and prefill"),
        ("{cite}`orca,splitwise`", "[(orca,splitwise)](/static/book/references.html)"),
        ("{ref}`below <ch1-cost>`", "[below](/static/book/01-introduction-llm-infrastructure.html#ch1-cost)"),
        ("[a](02-vllm-deployment.md#x) [b](#y)", "[a](/static/book/02-vllm-deployment.html#x) [b](/static/book/01-first.html#y)"),
        ("% figure: a reason\n(ch1-new)=\n## New", "## New"),
        (":::{dropdown} Why?\nBecause of {term}`decode`.\n:::", "<details><summary>Why?</summary>\n\nBecause of decode.\n\n</details>"),
        (":::{note}\nOne.\n\nTwo.\n:::", "> **Note**\n>\n> One.\n>\n> Two."),
        ("::::{predict} How many?\n:kind: number\n:::{note}\nIn.\n:::\n::::", "> **How many?**\n>\n> > **Note**\n> >\n> > In."),
        ("```{widget} cost\n:gpu: h100\n```", "> The page has an [interactive cost](/static/book/01-first.html#cost-widget) here."),
        ("```{figure} figures/a.svg\n:alt: Words.\n\nBelow.\n```", "![Words.](/static/book/../_images/a.svg)\n\n*Below.*"),
        ("```bash\nmake {x}\n```", "```bash\nmake {x}\n```"),
    ],
)  # fmt: skip
def test_what_only_the_site_understands_becomes_plain_markdown(written, shown):
    assert readable(written, SITE) == shown


def a_course(root):
    """A course with one chapter and one exercise, and the chapter's file."""
    (root / "book").mkdir()
    chapter = root / "book" / "01-first.md"
    chapter.write_text("# First\n\n```{code-cell} python3\nprint(6 * 7)\n```\n")
    twin = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    twin.metadata.update(kernelspec={"name": "python3", "display_name": "Python 3"}, language_info={"name": "python"})
    twin_path(chapter).parent.mkdir()
    nbformat.write(twin, twin_path(chapter))
    starter = root / "exercises" / "01-deploy" / "starter"
    starter.mkdir(parents=True)
    (starter / "launch.py").write_text("raise NotImplementedError\n")
    return chapter


def test_what_the_learner_changed_is_kept_until_it_is_reset(tmp_path):
    chapter, lab = a_course(tmp_path), tmp_path / "lab"
    assert workshop.prepare([chapter], lab, root=tmp_path) == []
    mine, exercise = lab / "01-first.ipynb", lab / "exercises" / "01-deploy" / "launch.py"
    changed = nbformat.read(mine, 4)
    changed.cells[1].source = "print('mine')"
    nbformat.write(changed, mine)
    exercise.write_text("print('mine')\n")
    twin, before = twin_path(chapter).read_bytes(), mine.read_bytes()

    assert workshop.prepare([chapter], lab, root=tmp_path) == []
    assert mine.read_bytes() == before

    told = workshop.prepare([chapter], lab, reset=True, root=tmp_path)
    assert told == ["01-first.ipynb: made anew; your copy is now 01-first.before-reset.ipynb"]
    assert "mine" not in mine.read_text() and (lab / "01-first.before-reset.ipynb").read_bytes() == before
    assert exercise.read_text() == "print('mine')\n", "an exercise is never overwritten"
    assert twin_path(chapter).read_bytes() == twin


def test_a_chapter_that_changed_since_is_told_and_the_copy_stays(tmp_path):
    chapter, lab = a_course(tmp_path), tmp_path / "lab"
    workshop.prepare([chapter], lab, root=tmp_path)
    twin_path(chapter).write_text(twin_path(chapter).read_text().replace("6 * 7", "6 * 8"))
    (told,) = workshop.prepare([chapter], lab, root=tmp_path)
    assert "has changed since you made this copy; make lab-reset NB=01" in told
    assert "6 * 7" in (lab / "01-first.ipynb").read_text()
    (lab / "01-first.ipynb").write_text("not a notebook")
    assert workshop.prepare([chapter], lab, root=tmp_path) == []


def test_bad_input_is_one_line(tmp_path, capsys):
    assert cli.main(["lab", "--reset"]) == 2
    assert capsys.readouterr().err == "llminfra: which chapter starts over? For example: make lab-reset NB=02\n"
    chapter = a_course(tmp_path)
    twin_path(chapter).unlink()
    with pytest.raises(InputError, match=r"01-first\.md has no notebook yet"):
        workshop.prepare([chapter], tmp_path / "lab", root=tmp_path)
    assert not list((tmp_path / "lab").glob("*.*"))[1:], "nothing half-written"


@pytest.fixture
def lab(tmp_path):
    """`llminfra lab 01` with its working copies in a folder of this test: their folder, its address and its token."""
    runtime = tmp_path / "runtime"
    elsewhere = tmp_path / "elsewhere" / "kernels" / "python3"
    elsewhere.mkdir(parents=True)
    (elsewhere / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "Another", "language": "python"})
    )
    env = {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_PATH": str(tmp_path / "elsewhere")}
    words = [
        str(Path(sys.executable).with_name("llminfra")),
        "lab",
        "01",
        "--no-browser",
        "--folder",
        str(tmp_path / "lab"),
    ]
    with (tmp_path / "said").open("w") as said:
        server = subprocess.Popen(words, env=env, stdout=said, stderr=said)
    try:
        until = time.monotonic() + 120
        while not (found := list(runtime.glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.1)
        told = json.loads(found[0].read_text())
        yield tmp_path / "lab", told
    finally:
        server.terminate()
        server.wait(60)


def test_a_chapters_first_cells_run_in_a_real_browser(lab, covered):
    folder, told = lab
    assert told["hostname"] == "127.0.0.1" and told["url"].startswith("http://127.0.0.1:") and told["token"]
    name = chapters()[0].stem
    foreign = []
    with browser.chromium() as chromium, chromium.new_context(viewport={"width": 1300, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda asked: foreign.append(asked.url) if asked.url.startswith("http") and not asked.url.startswith(told["url"]) else None)  # fmt: skip
        page.goto(f"{told['url']}lab/tree/{name}.ipynb?token={told['token']}")
        link = page.locator(".jp-MarkdownOutput a", has_text="chapter's page")
        with context.expect_page() as opened:
            link.click()
        opened.value.wait_for_load_state()
        assert opened.value.locator("h1").inner_text().startswith("Introduction to")
        assert opened.value.locator(".twin-stamp").count() == 1
        opened.value.close()

        cells = page.locator(".jp-CodeCell")
        cells.first.locator(".cm-content").click()
        page.keyboard.press("Control+Home")
        page.keyboard.type("executable_seen = 1\n")
        for _ in range(4):  # code, prose, code: Shift+Enter runs a cell and goes on to the next
            page.keyboard.press("Shift+Enter")
        ticked = page.locator(".jp-CodeCell .jp-OutputArea-output", has_text="✓ the 99th percentile")
        ticked.wait_for()
        assert page.locator(".jp-CodeCell .jp-OutputArea-output", has_text="Error").count() == 0
        assert page.get_by_text("Would you like to").count() == 0, "JupyterLab asks nothing of the learner"
        page.keyboard.press("Control+s")
        mine = folder / f"{name}.ipynb"
        until = time.monotonic() + 60
        while "executable_seen" not in mine.read_text() or "✓ the 99th" not in mine.read_text():
            assert time.monotonic() < until, "the changed copy is not saved"
            page.wait_for_timeout(200)
    assert foreign == []
    assert "executable_seen" not in twin_path(chapters()[0]).read_text()
    covered("lab", f"{name}: its first cells run in JupyterLab, from a changed copy; no request to another host")


def test_the_kernel_is_of_this_environment(lab):
    _, told = lab
    asked = {"headers": {"Authorization": f"token {told['token']}"}, "timeout": 60}
    specs = httpx.get(f"{told['url']}api/kernelspecs", **asked).json()["kernelspecs"]
    assert set(specs) == {"python3"} and specs["python3"]["spec"]["display_name"] != "Another"
    assert httpx.get(f"{told['url']}api/contents", timeout=60).status_code == 403, "the token guards it"
    kernel = httpx.post(f"{told['url']}api/kernels", json={"name": "python3"}, **asked).json()["id"]
    until, running = time.monotonic() + 60, []
    while not running and time.monotonic() < until:
        children = psutil.Process(told["pid"]).children(recursive=True)
        running = [child.cmdline()[0] for child in children if any(kernel in word for word in child.cmdline())]
    assert [Path(one).parent.resolve() for one in running] == [Path(sys.executable).parent.resolve()]


def test_make_and_git_know_it():
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make lab " in said and "make lab-reset" in said
    assert "lab/" in (ROOT / ".gitignore").read_text().splitlines()
