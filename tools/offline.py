"""Pack the built site into _build/llm-infrastructure.zip, the same bytes each time; any static server opens it."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

from serve import SITE

NAME = "llm-infrastructure"
# What Sphinx leaves for itself and for other projects; no page asks for it.
LEFT_OUT = {"objects.inv", ".buildinfo", "_sources"}
README = """LLM Infrastructure, to read offline

1. In this folder, start any static web server. One comes with Python:

       python3 -m http.server 8000 --bind 127.0.0.1

   On Windows: py -m http.server 8000 --bind 127.0.0.1

2. Open http://127.0.0.1:8000/ in a browser. Ctrl-C in the terminal ends the server.

Nothing else is needed, and no page asks for anything on the internet. Links to other sites work when you are online.

Opened without a server, by double-clicking index.html, the pages can be read too, but they cannot be searched and their
widgets stand still: browsers don't let a file fetch others. To put the site online, copy this folder to any static host, at any path.
"""


def files(site: Path) -> list[Path]:
    """Return the files of a built site that its pages need, sorted, below the site."""
    found = (path.relative_to(site) for path in site.rglob("*") if path.is_file())
    return sorted(path for path in found if not LEFT_OUT & set(path.parts))


def pack(site: Path, target: Path) -> int:
    """Write the pack, one folder with a README.txt, and return how many files of the site it holds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    packed = files(site)
    with zipfile.ZipFile(part, "w") as pack:
        add(pack, "README.txt", README.encode())
        for path in packed:
            add(pack, path.as_posix(), (site / path).read_bytes())
    part.replace(target)
    return len(packed)


def add(pack: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file without its time and its owner."""
    entry = zipfile.ZipInfo(f"{NAME}/{name}", (1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    pack.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def main() -> int:
    """Pack; 2 with one line if nothing is built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SITE.parent / f"{NAME}.zip")
    output = parser.parse_args().output
    if not (SITE / "index.html").is_file():
        print("Nothing is built yet: run make book", file=sys.stderr)
        return 2
    count = pack(SITE, output)
    print(f"{output}: {count} files, {output.stat().st_size / 1e6:.1f} MB. Unpack it and follow its README.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
