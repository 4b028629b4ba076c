"""Collect the prose of the code: docstrings, comments, messages and texts that a person reads, each with file and line.

`scripts/sample_prose.py` prints a random sample of it. Vendored files, test data, directives such as `noqa`, program
text, and strings without two words separated by a space are not collected.
"""

from __future__ import annotations

from pathlib import Path

from scripts.prose.dashboard import dashboard_passages
from scripts.prose.passage import Passage
from scripts.prose.python import python_passages

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("common", "services", "tidal_client", "tests", "bench", "scripts", "migrations")
DASHBOARD_SUFFIXES = (".js", ".css", ".html")


def source_files(root: Path = ROOT) -> dict[str, str]:
    """Return a dictionary {path relative to `root`: text} of all Python files and all files of the dashboard."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            dashboard = name.startswith("services/dashboard/static/") and path.suffix in DASHBOARD_SUFFIXES
            if (path.suffix == ".py" or dashboard) and "/vendor/" not in name and not name.startswith("tests/data/"):
                found[name] = path.read_text(encoding="utf-8")
    return found


def passages(files: dict[str, str]) -> list[Passage]:
    """Return all prose of the files, sorted by file and line."""
    found: list[Passage] = []
    for name, text in files.items():
        found += python_passages(text, name) if name.endswith(".py") else dashboard_passages(text, name)
    return sorted(found)
