"""Serves the dashboard's files from memory: compressed, with an ETag, and under URLs that change with their content.

Comments that fill a whole line are removed from scripts, which saves a tenth of their size. Line numbers do not change.
`index.html` is changed in three ways. It preloads every script, so that a browser requests all of them at once. It
links a single style sheet, which contains all style sheets that the original file links. Its URLs contain a digest of
all files, so that a browser may cache the files for ever. Changes of the files take effect at the next request for
`index.html`. Routing and response headers are in `routes/dashboard.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "dashboard" / "static"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
    ".json": "application/json",
}
PRELOAD_MARK = "<!-- modulepreload -->"
STYLES = "styles.css"
"""Name of the file that joins all style sheets of index.html in their order. One file needs fewer requests than
separate files, and its compressed size is a third smaller.
"""
_STYLE_LINKS = re.compile(r'(?:<link rel="stylesheet" href="assets/[^"]+">\n?)+')
VENDORED = "vendor/"
"""Folder of third-party libraries. Their comments are kept, because they contain the licences."""
_COMMENTS = re.compile(r"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.MULTILINE)
_PREFIX = '"assets/'
"""In index.html, each reference to a file begins with this text."""


@dataclass(frozen=True)
class StaticFile:
    """The content of one file and its headers."""

    content_type: str
    etag: str
    plain: bytes
    packed: bytes
    """The content, compressed with gzip."""


class StaticFiles:
    """Serves the files of one folder from memory. Its methods are thread-safe."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stamp: tuple[tuple[str, int, int], ...] = ()
        self._files: dict[str, StaticFile] = {}
        self.digest = ""

    def get(self, name: str) -> StaticFile | None:
        """Return the file at the relative path `name`, or None if there is no such file."""
        with self._lock:
            if name == INDEX or not self._files:
                self._refresh()
            return self._files.get(name)

    def _refresh(self) -> None:
        """Read all files again if a name, size or modification time has changed."""
        paths = sorted(path for path in self._folder.rglob("*") if path.is_file() and path.suffix in TYPES)
        stamp = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        if stamp == self._stamp:
            return
        contents = {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in paths}
        index = contents.get(INDEX, b"").decode()
        sheets = re.findall(r'<link rel="stylesheet" href="assets/([^"]+)">', index)
        if sheets:
            contents[STYLES] = b"\n".join(contents[name] for name in sheets)
        total = hashlib.sha256()
        for name, content in contents.items():
            total.update(f"{name}\0{len(content)}\0".encode() + content)
        self.digest = total.hexdigest()[:16]
        if INDEX in contents:
            contents[INDEX] = self._index(index, sorted(contents)).encode()
        self._files = {name: _to_static_file(name, content) for name, content in contents.items()}
        self._stamp = stamp

    def _index(self, text: str, names: list[str]) -> str:
        scripts = [name for name in names if name.endswith(".js")]
        links = "\n".join(f'<link rel="modulepreload" href="assets/{name}">' for name in scripts)
        text = _STYLE_LINKS.sub(f'<link rel="stylesheet" href="assets/{STYLES}">\n', text)
        return text.replace(PRELOAD_MARK, links).replace(_PREFIX, f"{_PREFIX}{self.digest}/")


def _without_comments(script: str) -> str:
    return _COMMENTS.sub(lambda found: "\n" * found[0].count("\n"), script)


def _to_static_file(name: str, content: bytes) -> StaticFile:
    if name.endswith(".js") and not name.startswith(VENDORED):
        content = _without_comments(content.decode()).encode()
    packed = gzip.compress(content, 9, mtime=0)
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    return StaticFile(TYPES[Path(name).suffix], etag, content, packed)
