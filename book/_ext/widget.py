"""Interactive widgets: `{widget} NAME` puts a form and its result into the page; `widget.mjs` computes it anew there.

Both are made by `llminfra.web.widgets`: here when the site is built, there by MicroPython from the same files.
"""

from __future__ import annotations

import json
import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import llminfra
from llminfra.web import widgets

FOLDERS = ("calc", "web")
# Its licence is book/_static/micropython-license.txt.
MICROPYTHON = Path("node_modules", "@micropython", "micropython-webassembly-pyscript")
LONG = 14  # letters of a list's longest entry
NO_SCRIPT = "Changing these values needs JavaScript; below is the result for them as they stand."


def bundle() -> dict[str, str]:
    """Return what MicroPython imports in the page, by path: the sources as they are, the data without white space."""
    package = Path(llminfra.__file__).parent
    files = {"llminfra/__init__.py": ""}
    for path in sorted(path for folder in FOLDERS for path in (package / folder).rglob("*.*")):
        if path.suffix == ".py":
            files[f"llminfra/{path.relative_to(package).as_posix()}"] = path.read_text(encoding="utf-8")
        elif path.suffix == ".json":
            read = json.loads(path.read_text(encoding="utf-8"))
            files[f"llminfra/{path.relative_to(package).as_posix()}"] = json.dumps(read, separators=(",", ":"))
    return files


class Widget(SphinxDirective):
    """`{widget} NAME`, whose options give other defaults to its fields; several of one kind may share a page."""

    required_arguments = 1
    option_spec = {field["name"]: directives.unchanged for name in widgets.NAMES for field in widgets.fields(name)}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return the form and the result; an error for an unknown widget, a field that it lacks, or a bad value."""
        name = self.arguments[0]
        try:
            result = widgets.result(name, self.options)
        except ValueError as error:
            raise self.error(f"widget {name}: {error}") from error
        self.env.metadata[self.env.docname]["widget"] = "yes"  # page.html loads the script
        number = self.env.new_serialno(f"widget-{name}")
        return [nodes.raw("", self.render(name, f"{name}-{number + 1}" if number else name, result), format="html")]

    def render(self, name: str, key: str, result: str) -> str:
        """Return the widget as HTML; `key` begins its ids, and its values in an address."""
        fields = [{**field, "value": self.options.get(field["name"], field["value"])} for field in widgets.fields(name)]
        controls = "".join(control(key, field) for field in fields if not field.get("more"))
        folded = "".join(control(key, field) for field in fields if field.get("more"))
        if folded:
            controls += f'<details class="widget-more"><summary>Engine settings</summary><div>{folded}</div></details>'
        return (
            f'<div class="widget" id="{key}-widget" data-widget="{name}">'
            f'<form autocomplete="off"><fieldset disabled><legend>{escape(widgets.title(name))}</legend>{controls}</fieldset></form>'
            f'<noscript><p class="widget-note">{NO_SCRIPT}</p></noscript>'
            f'<p class="widget-error" id="{key}-error" role="alert" hidden></p>'
            f'<div class="widget-result">{result}</div></div>'
        )


def control(widget: str, field: dict[str, Any]) -> str:
    """Return a field of the widget with this key, with its label and its hint, as HTML."""
    key, value, hint = f"{widget}-{field['name']}", escape(field["value"]), field["hint"]
    common = f'id="{key}" name="{field["name"]}" aria-errormessage="{widget}-error"'
    common += f' aria-describedby="{key}-hint"' if hint else ""
    wide = ""  # what needs a phone's whole width, or two columns
    if field["kind"] == "select":
        chosen = {choice: " selected" if choice == field["value"] else "" for choice, _ in field["options"]}
        options = "".join(
            f'<option value="{escape(choice)}"{chosen[choice]}>{escape(words)}</option>'
            for choice, words in field["options"]
        )
        made = f"<select {common}>{options}</select>"
        longest = max(len(words) for _, words in field["options"])
        wide = " wider" if longest > 2 * LONG else " wide" if longest > LONG else ""
    else:
        bounds = " ".join(f'{bound}="{field[bound]}"' for bound in ("min", "max", "step"))
        made = f'<input type="{field["kind"]}" {common} {bounds} value="{value}" required>'
        if field["kind"] == "range":
            made += f'<output for="{key}">{value}</output>'
    small = f'<small id="{key}-hint">{escape(hint)}</small>' if hint else ""
    return f'<div class="widget-field {field["kind"]}{wide}"><label for="{key}">{escape(field["label"])}</label>{made}{small}</div>'


def ship(app: Sphinx, exception: Exception | None) -> None:
    """After the build, if a page has a widget: put beside the pages what its script loads."""
    if exception or app.builder.name != "html" or not any("widget" in meta for meta in app.env.metadata.values()):
        return
    static = Path(app.outdir) / "_static"
    for name in ("micropython.mjs", "micropython.wasm"):
        file = Path(app.srcdir) / MICROPYTHON / name
        if not file.is_file():
            raise ExtensionError(f"{MICROPYTHON / name}, which widgets run in, is not there: make book installs it")
        shutil.copyfile(file, static / name)
    (static / "calc.json").write_text(json.dumps(bundle(), ensure_ascii=False), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and what follows the build."""
    app.add_directive("widget", Widget)
    app.connect("build-finished", ship)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
