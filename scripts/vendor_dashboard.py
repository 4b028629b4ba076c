"""Refresh the dashboard's libraries in `services/dashboard/static/vendor/` from npm, by name and version.

`python scripts/vendor_dashboard.py` downloads each package of `LIBRARIES`, checks the tarball against its SHA-512, and
writes the files that the dashboard needs, their licences, and `manifest.json` with the SHA-256 of each file. `--check`
downloads nothing and compares the files with the manifest. To update a library, change its version here, copy the hash
that `npm view NAME@VERSION dist.integrity` prints, then run this script and the browser tests. The script uses the
standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "services" / "dashboard" / "static" / "vendor"
AXE_FOLDER = ROOT / "tests" / "data" / "axe"
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")


@dataclass(frozen=True)
class Library:
    """One npm package. `files` maps a path in the tarball to the name of the file in `folder`."""

    name: str
    version: str
    licence: str
    integrity: str
    files: dict[str, str]
    folder: Path = FOLDER
    append: str = ""
    """Text appended to every script of the package, for example an export for a package published without one."""
    types: dict[str, str] = field(default_factory=dict)
    """Maps the name of a type declaration file to its text, which refers to the npm package with the types. Only the
    type check uses these files."""


LIBRARIES = [
    Library(
        "preact",
        "11.2.0",
        "MIT",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "preact-hooks.js", "LICENSE": "preact.LICENSE"},
        types={
            "preact.d.ts": 'export * from "preact";\n',
            "preact-hooks.d.ts": 'export * from "preact/hooks";\n',
        },
    ),
    Library(
        "htm",
        "3.1.1",
        "Apache-2.0",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE"},
        types={"htm.d.ts": 'export { default } from "htm";\n'},
    ),
    Library(
        "uplot",
        "1.6.32",
        "MIT",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE"},
        append="export default uPlot;\n",
        types={"uplot.d.ts": 'export { default } from "uplot";\n'},
    ),
    Library(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        {"axe.min.js": "axe.min.js", "LICENSE": "axe.LICENSE"},
        folder=AXE_FOLDER,
    ),
]
BARE_IMPORTS = {"preact": "./preact.js", "preact/hooks": "./preact-hooks.js"}
"""Maps imports that a browser cannot resolve without an import map to the paths that replace them."""


def main() -> int:
    """Refresh the files; with `--check`, only compare them with the manifests. Return the exit status."""
    return check() if "--check" in sys.argv[1:] else refresh()


def refresh() -> int:
    """Download all libraries and write their files and manifests; return 0."""
    for folder in {library.folder for library in LIBRARIES}:
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for library in (one for one in LIBRARIES if one.folder == folder):
            package = download(library)
            contents = {name: prepared(library, name, package[source]) for source, name in library.files.items()}
            contents |= {name: text.encode() for name, text in library.types.items()}
            for name, data in contents.items():
                (folder / name).write_bytes(data)
                entries.append(
                    {
                        "file": name,
                        "package": f"{library.name}@{library.version}",
                        "licence": library.licence,
                        "sha256": hashlib.sha256(data).hexdigest(),
                    }
                )
                print(f"{library.name} {library.version}: {name}, {len(data)} bytes")
        (folder / "manifest.json").write_text(json.dumps(entries, indent=1) + "\n")
    return 0


def check() -> int:
    """Print files that differ from their manifest; return 1 if there are any."""
    wrong = []
    for folder in sorted({library.folder for library in LIBRARIES}):
        entries = json.loads((folder / "manifest.json").read_text())
        named = {entry["file"]: entry["sha256"] for entry in entries}
        wrong += [folder / f for f, digest in named.items() if digest != sha256(folder / f)]
        wrong += [path for path in sorted(folder.iterdir()) if path.name not in {*named, "manifest.json"}]
    for path in wrong:
        print(f"{path.relative_to(ROOT)} differs from the file that was vendored", file=sys.stderr)
    return 1 if wrong else 0


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, or `missing`."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def download(library: Library) -> dict[str, bytes]:
    """Return the files of the package's tarball by path. Raises SystemExit if the hash of the tarball is wrong."""
    base = library.name.rpartition("/")[2]
    with urllib.request.urlopen(f"{REGISTRY}/{library.name}/-/{base}-{library.version}.tgz", timeout=60) as reply:
        tarball = reply.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != library.integrity:
        raise SystemExit(
            f"{library.name} {library.version} has hash {found}, not {library.integrity}; no files were written"
        )
    files = {}
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                files[member.name.partition("/")[2]] = content.read()
    return files


def prepared(library: Library, name: str, data: bytes) -> bytes:
    """Return a script without its source map and with imports that a browser can resolve; return other files
    unchanged."""
    if not name.endswith(".js") or library.folder != FOLDER:
        return data
    text = re.sub(r"^//# sourceMappingURL=.*$", "", data.decode(), flags=re.MULTILINE).rstrip() + "\n"
    for bare, path in BARE_IMPORTS.items():
        text = re.sub(rf"(from\s*)(['\"]){re.escape(bare)}\2", rf"\1\2{path}\2", text)
    return (text + library.append).encode()


if __name__ == "__main__":
    sys.exit(main())
