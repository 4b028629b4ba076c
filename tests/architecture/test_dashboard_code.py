"""The dashboard's code is narrow and short, and is checked against the libraries that are vendored.

`scripts/check_dashboard.py` formats, lints and checks the types; `make check` runs it. Here is what it leaves out.
"""

from __future__ import annotations

import json
from pathlib import Path

from scripts.vendor_dashboard import LIBRARIES

ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARD = ROOT / "services" / "dashboard"
MAX_COLUMNS = 120
MAX_LINES = 400


def written_by_hand() -> dict[str, list[str]]:
    """The lines of each file, without those of other people."""
    found = [path for kind in ("js", "css", "html", "ts") for path in DASHBOARD.rglob(f"*.{kind}")]
    ours = [path for path in found if path.parent.name != "vendor"]
    assert len(ours) > 60
    return {str(path.relative_to(DASHBOARD)): path.read_text().split("\n") for path in ours}


def test_no_line_is_wider_than_a_screen() -> None:
    wide = {
        f"{name}:{number}": len(line)
        for name, lines in written_by_hand().items()
        for number, line in enumerate(lines, 1)
        if len(line) > MAX_COLUMNS
    }
    assert not wide, f"break these lines: {wide}"


def test_files_hold_one_thing() -> None:
    scripts = {name: lines for name, lines in written_by_hand().items() if name.endswith((".js", ".ts"))}
    long = {name: len(lines) for name, lines in scripts.items() if len(lines) > MAX_LINES}
    assert not long, f"split these: {long}"


def test_the_types_of_the_libraries_are_those_of_the_vendored_versions() -> None:
    checked = json.loads((DASHBOARD / "checks" / "package.json").read_text())["devDependencies"]
    vendored = {library.name: library.version for library in LIBRARIES if library.types}
    assert {name: checked[name] for name in vendored} == vendored
