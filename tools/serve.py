"""Serve the built site on 127.0.0.1 as a static host does: compressed, with validators. Only the standard library."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import mimetypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
COMPRESSED = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt", ".xml", ".wasm", ".map", ".inv"}
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".svg": "image/svg+xml"}


@cache
def body(path: Path, _modified_ns: int, compress: bool) -> tuple[bytes, str]:
    """Return a file's bytes as they are sent, and their ETag."""
    data = path.read_bytes()
    if compress:
        data = gzip.compress(data, 6, mtime=0)
    return data, f'"{hashlib.sha256(data).hexdigest()[:20]}"'


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the folder that its server names."""

    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        """Send a file, 304 if the client has it, or 404."""
        path = (self.server.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if path.is_dir():
            path = path / "index.html"
        if not path.is_relative_to(self.server.root) or not path.is_file():
            self._send(HTTPStatus.NOT_FOUND, b"Not found\n", {"Content-Type": "text/plain"})
            return
        compress = path.suffix in COMPRESSED and "gzip" in self.headers.get("Accept-Encoding", "")
        data, etag = body(path, path.stat().st_mtime_ns, compress)
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        headers = {"Content-Type": kind + charset, "ETag": etag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
        if self.headers.get("If-None-Match") == etag:
            self._send(HTTPStatus.NOT_MODIFIED, b"", headers)
            return
        self._send(HTTPStatus.OK, data, {**headers, **({"Content-Encoding": "gzip"} if compress else {})})

    do_HEAD = do_GET

    def _send(self, status: HTTPStatus, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


class Site(ThreadingHTTPServer):
    """A server of one folder."""

    daemon_threads = True

    def __init__(self, root: Path, port: int):
        self.root = root.resolve()
        super().__init__(("127.0.0.1", port), Handler)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Give the address of a folder's pages, on 127.0.0.1 and a free port, while the block runs."""
    server = Site(root, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def main() -> int:
    """Serve until Ctrl-C; 2 with one line if nothing is built or the port is taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not (SITE / "index.html").is_file():
        print("Nothing is built yet: run make book", file=sys.stderr)
        return 2
    try:
        site = Site(SITE, port)
    except OSError as error:
        print(f"Port {port} on 127.0.0.1: {error.strerror}; choose another: make serve PORT=8001", file=sys.stderr)
        return 2
    print(f"Reading at http://127.0.0.1:{site.server_address[1]}/ until Ctrl-C", flush=True)
    try:
        site.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
