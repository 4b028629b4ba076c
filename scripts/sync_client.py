"""Generate the synchronous client, `tidal_client/synchronous/`, from the asynchronous one.

    python -m scripts.sync_client

Change a method in `tidal_client/asynchronous/` and run this script; a test compares the two. The modules differ in the
words of RULES only. `runtime.py` and `__init__.py` are written by hand in both packages.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tidal_client" / "asynchronous"
TARGET = ROOT / "tidal_client" / "synchronous"
BY_HAND = ("__init__.py", "runtime.py")
RULES = [
    (r"\basync (?=def|with|for)", ""),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\b(Abstract)?Async(?=[A-Z])", r"\1"),
    (r"\basync_(?=[a-z])", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\b(?:aclosing)\b", "closing"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\ba(close|read|iter_bytes)\(", r"\1("),
    (r"\baiter_sse\b", "iter_sse"),
    (r"which its tasks share", "which threads may share"),
]
"""Patterns and their replacements, applied to the whole text of a module one after the other."""
HEADER = "# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.\n"


def main() -> int:
    """Write the modules, and delete those that have no source any more."""
    wanted = synchronous_modules()
    for path in sorted(TARGET.glob("*.py")):
        if path.name not in (*wanted, *BY_HAND):
            path.unlink()
    for name, text in wanted.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {len(wanted)} modules")
    return 0


def synchronous_modules() -> dict[str, str]:
    """Return {file name: text} of the generated modules."""
    return {
        path.name: _formatted(synchronous(path.read_text(encoding="utf-8")), path.name)
        for path in sorted(SOURCE.glob("*.py"))
        if path.name not in BY_HAND
    }


def synchronous(text: str) -> str:
    """Return the synchronous counterpart of the text of a module, not formatted yet."""
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    docstring, end, rest = text.partition('"""\n\n')
    return f"{docstring}{end}{HEADER}{rest}"


def _formatted(text: str, name: str) -> str:
    """Sort and remove imports, use `yield from`, and format, as ruff does for a file of this name in the package."""
    path = str(TARGET / name)
    ruff = [sys.executable, "-m", "ruff"]
    fixes = ["--fix-only", "--unsafe-fixes", "--select", "I,F401,UP028"]
    for command in (["check", *fixes], ["format"]):
        done = subprocess.run(
            [*ruff, *command, "--quiet", "--stdin-filename", path, "-"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        text = done.stdout
    return text


if __name__ == "__main__":
    raise SystemExit(main())
