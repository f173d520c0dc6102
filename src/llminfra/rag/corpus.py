"""The documents that are searched: the reference text of installed packages, and the files of an invented company.

Nothing is imported and nothing fetched: docstrings, the texts beside fields, the help of command-line options, environment variables and
their comments, and package descriptions are read from the installed files. Whoever installs the same lock has the same text.
"""

from __future__ import annotations

import ast
import email
import html
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from llminfra.errors import CorpusError

EVERYONE = "everyone"
MAX_BYTES = 20_000_000
"""No file above this is read."""
INSTALL = "make .venv/.ready installs what requirements.txt locks"
MIN_LETTERS = 60
"""What says less than this says nothing that its name does not."""

# Which modules of which packages: those that somebody who serves a model asks about.
SOURCES: dict[str, tuple[str, ...]] = {
    "vllm": (
        "config/*.py", "engine/arg_utils.py", "entrypoints/llm.py", "entrypoints/cli/**/*.py", "envs.py", "lora/*.py",
        "entrypoints/openai/chat_completion/protocol.py", "entrypoints/openai/completion/protocol.py", "outputs.py",
        "pooling_params.py", "sampling_params.py", "v1/core/**/*.py", "v1/engine/*.py", "v1/kv_cache_interface.py",
        "v1/metrics/*.py", "v1/request.py", "v1/sample/*.py", "v1/spec_decode/*.py", "v1/structured_output/*.py",
    ),
    "transformers": (
        "cache_utils.py", "generation/configuration_utils.py", "generation/stopping_criteria.py",
        "generation/streamers.py", "tokenization_utils_base.py", "trainer_callback.py", "training_args.py",
        "utils/quantization_config.py",
    ),
    "peft": ("config.py", "helpers.py", "peft_model.py", "tuners/lora/config.py", "tuners/lora/model.py", "utils/*.py"),
    "accelerate": ("accelerator.py", "big_modeling.py", "utils/dataclasses.py"),
    "qdrant_client": ("qdrant_client.py", "http/models/models.py", "http/exceptions.py"),
    "chromadb": ("api/__init__.py", "api/types.py", "api/models/Collection.py", "config.py", "errors.py", "cli/*.py"),
    "pgvector": ("**/*.py",),
    "psycopg": ("connection.py", "cursor.py", "conninfo.py", "errors.py", "rows.py", "sql.py", "_copy.py"),
    "bm25s": ("__init__.py", "tokenization.py"),
    "ir_measures": ("**/*.py",),
    "fastapi": ("*.py", "security/*.py", "middleware/*.py"),
    "starlette": ("**/*.py",),
    "uvicorn": ("*.py",),
    "pydantic": ("config.py", "fields.py", "functional_validators.py", "main.py", "type_adapter.py"),
    "httpx": ("*.py",),
    "aiohttp": ("client.py", "client_exceptions.py", "connector.py", "helpers.py"),
    "openai": ("types/chat/completion_create_params.py", "types/chat/chat_completion.py", "_client.py", "_exceptions.py"),
    "prometheus_client": ("*.py",),
    "huggingface_hub": ("file_download.py", "_snapshot_download.py", "utils/_cache_manager.py", "errors.py"),
    "safetensors": ("*.py",),
    "compressed_tensors": ("quantization/*.py", "config/*.py"),
}  # fmt: skip
# Distributions whose own descriptions are read too.
DESCRIPTIONS = (
    "accelerate", "aiohttp", "bm25s", "chromadb", "compressed-tensors", "fastapi", "gguf", "httpx", "huggingface-hub",
    "ir-measures", "kubernetes", "numpy", "openai", "outlines-core", "peft", "pgvector", "prometheus-client", "psycopg",
    "psutil", "pydantic", "pydantic-settings", "pymilvus", "qdrant-client", "qdrant-edge-py", "rich", "safetensors",
    "scikit-learn", "sentence-transformers", "starlette", "tenacity", "tiktoken", "tokenizers", "transformers", "uvicorn",
    "uvloop", "weaviate-client", "xgrammar",
)  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A text with its address in the corpus, and the roles that may read it.

    `text` is Markdown: a heading for each thing described. `roles` holds `everyone`, or the roles of which a reader needs one.
    """

    id: str
    text: str
    roles: frozenset[str] = frozenset({EVERYONE})


def packages() -> list[Document]:
    """Return the reference text of the installed packages: a document for each module and each package description.

    Raises CorpusError where a package of `SOURCES` or `DESCRIPTIONS` is not installed.
    """
    return [*modules(), *descriptions()]


def modules() -> Iterator[Document]:
    """Yield a document for each module of `SOURCES` that describes something, in the order of their names."""
    for package, patterns in sorted(SOURCES.items()):
        root = _folder(package)
        said: set[str] = set()  # FastAPI documents an argument wherever it can be given
        for file in sorted({file for pattern in patterns for file in root.glob(pattern)}):
            parts = [part for part in reference(file.read_text(encoding="utf-8")) if part[1] not in said]
            said.update(text for _, text in parts)
            if parts:
                text = "\n".join(f"## {head}\n\n{text}\n" if head else f"{text}\n" for head, text in parts)
                name = file.relative_to(root.parent).as_posix()
                yield Document(name, f"# {name}\n\n{text}")


def descriptions() -> Iterator[Document]:
    """Yield what each distribution of `DESCRIPTIONS` says of itself."""
    for name in DESCRIPTIONS:
        try:
            about = email.message_from_string(importlib.metadata.distribution(name).read_text("METADATA") or "")
        except importlib.metadata.PackageNotFoundError:
            raise CorpusError(f"{name} is not installed: {INSTALL}") from None
        text = plain(str(about.get_payload() or about.get("Description") or "").partition("\n## Changelog")[0])
        summary = about.get("Summary") or ""
        yield Document(f"{name.lower()}/description", f"# {name}\n\n{summary}\n\n{text}".strip() + "\n")


def company() -> list[Document]:
    """Return the files of the invented company, which ship with this package."""
    return folder(Path(__file__).with_name("company"))


def folder(root: Path) -> list[Document]:
    """Return a document for each .md and .txt file under `root`; front matter may name `roles`.

    Raises CorpusError for a folder without any, for a file that is not text, and for one above `MAX_BYTES`.
    """
    files = sorted(file for file in root.rglob("*") if file.suffix in (".md", ".txt") and file.is_file())
    if not files:
        raise CorpusError(f"{root} holds no .md or .txt file: nothing to index")
    return [read(file, f"{root.name}/{file.relative_to(root).as_posix()}") for file in files]


def read(file: Path, name: str) -> Document:
    """Return one file as the document `name`. Front matter that cannot be read is refused: it may say who may read the rest."""
    if file.stat().st_size > MAX_BYTES:
        raise CorpusError(f"{file} has {file.stat().st_size:,} bytes, above the limit of {MAX_BYTES:,}: split it")
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file} is not UTF-8 text (byte {error.start}): convert it or leave it out") from None
    if "\0" in text:
        raise CorpusError(f"{file} holds NUL characters, so it is not text: convert it or leave it out")
    front = re.match(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", text, re.S | re.M)
    if not front:
        if text.startswith("---"):
            raise CorpusError(f"{file}: no line --- ends its front matter, so who may read it is not known")
        return Document(name, text)
    try:
        named = yaml.safe_load(front[1]) or {}
    except yaml.YAMLError as error:
        raise CorpusError(f"{file}: its front matter is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(named, dict) or named.keys() - {"roles"}:
        raise CorpusError(f"{file}: its front matter may hold `roles` and nothing else")
    roles = named.get("roles", [EVERYONE])
    if not isinstance(roles, list) or not roles or not all(isinstance(role, str) and role.strip() for role in roles):
        raise CorpusError(f"{file}: `roles` in its front matter must be a list of names, and not an empty one")
    return Document(name, text[front.end() :].lstrip(), frozenset(roles))


def reference(source: str) -> list[tuple[str, str]]:
    """Return (heading, text) of each public thing in a module's source that says what it is; the module has no heading."""
    tree = ast.parse(source)
    found = [*_described(tree, ""), *_options(tree), *_variables(source, tree)]
    return [(head, text) for head, text in found if len(text) >= MIN_LETTERS]


def _described(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    """Yield (heading, text) of a node and all public ones in it."""
    text = ast.get_docstring(node)
    if text and not text.startswith("@"):
        yield _heading(node, name), text.strip()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _annotated(node, name)
        return
    before: ast.stmt | None = None
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not child.name.startswith("_") or child.name == "__init__":
                yield from _described(child, f"{name}.{child.name}".strip("."))
        elif isinstance(child, ast.Expr) and before is not None:
            said = _string(child.value)
            if said:
                yield _field(before, name), said
        elif isinstance(child, ast.AnnAssign):
            said = next(
                (_string(word.value) for word in _keywords(child.value) if word.arg in ("description", "help")), ""
            )
            metadata = next((word.value for word in _keywords(child.value) if word.arg == "metadata"), None)
            if isinstance(metadata, ast.Dict):
                pairs = zip(metadata.keys, metadata.values, strict=True)
                said = next((_string(value) for key, value in pairs if _string(key) == "help"), said)
            if said:
                yield _field(child, name), said
        is_field = isinstance(child, ast.AnnAssign) or (
            isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name)
        )
        before = child if is_field else None


def _heading(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        named = ", ".join(
            word.arg
            for word in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if word.arg not in ("self", "cls")
        )
        return f"{name}({named if len(named) < 160 else named[:160] + '…'})"
    return ""


def _field(node: ast.stmt, name: str) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]  # type: ignore[attr-defined]
    shown = f"{name}.{target.id}".strip(".") if isinstance(target, ast.Name) else name
    kind = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    value = getattr(node, "value", None)
    default = f" = {ast.unparse(value)}" if isinstance(value, ast.Constant | ast.Name | ast.UnaryOp) else ""
    return f"{shown}{kind[:100]}{default[:60]}"


def _annotated(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple[str, str]]:
    """Yield what `Annotated[..., Doc("...")]` says of each argument."""
    for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
        for call in ast.walk(argument.annotation) if argument.annotation else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Doc" and call.args:
                yield f"{name}: argument {argument.arg}", _string(call.args[0])


def _options(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each command-line option that has a constant help text."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.args:
            option = next((_string(word) for word in call.args if _string(word).startswith("--")), "")
            said = next((_string(word.value) for word in call.keywords if word.arg == "help"), "")
            if option and said:
                yield f"option {option}", said


def _variables(source: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each environment variable that is a key of a table and has a comment above it."""
    lines = source.splitlines()
    for table in ast.walk(tree):
        for key in table.keys if isinstance(table, ast.Dict) else ():
            name = _string(key)
            if not re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", name) or key is None:
                continue
            above = key.lineno - 2
            comment: list[str] = []
            while above >= 0 and lines[above].strip().startswith("#"):
                comment.insert(0, lines[above].strip().lstrip("# "))
                above -= 1
            if comment:
                yield f"environment variable {name}", "\n".join(comment)


def _keywords(node: ast.AST | None) -> list[ast.keyword]:
    return node.keywords if isinstance(node, ast.Call) else []


def _string(node: ast.AST | None) -> str:
    """Return a constant string, cleaned like a docstring, or nothing."""
    return (
        inspect.cleandoc(node.value).strip() if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    )


TAGS = "a|b|br|center|code|details|div|em|h[1-6]|hr|img|kbd|li|p|picture|pre|source|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|ul"


def plain(text: str) -> str:
    """Return Markdown or reStructuredText without badges, images, HTML and addresses."""
    text = re.sub(rf"<!--.*?-->|</?(?:{TAGS})\b[^>]*>", "", text.replace("\r\n", "\n"), flags=re.S)
    text = re.sub(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\.\. (image|figure|\|)[^\n]*\n(?:[ \t]+[^\n]*\n)*", "", text, flags=re.M)
    text = re.sub(r"^(.+)\n(?:={3,}|-{3,}|~{3,})\s*$", r"## \1", text, flags=re.M)
    return html.unescape(re.sub(r"\n\s*\n\s*\n+", "\n\n", text)).strip()


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if not found or not found.submodule_search_locations:
        raise CorpusError(f"{package} is not installed: {INSTALL}")
    return Path(next(iter(found.submodule_search_locations)))
