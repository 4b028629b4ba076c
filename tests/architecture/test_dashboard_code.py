"""Files and lines of the dashboard's code are short, and types are checked against the vendored versions of libraries.

`make check` runs `scripts/check_dashboard.py`, which checks format, lint rules and types, but not
what is tested here.
"""

from __future__ import annotations

import json

from scripts.vendor_dashboard import LIBRARIES
from tests.paths import ROOT

DASHBOARD = ROOT / "services" / "dashboard"
MAX_COLUMNS = 120
MAX_LINES = 400


def written_by_hand() -> dict[str, list[str]]:
    """Return {path: lines} of all source files except the vendored ones."""
    found = [path for kind in ("js", "css", "html", "ts") for path in DASHBOARD.rglob(f"*.{kind}")]
    ours = [path for path in found if path.parent.name != "vendor"]
    assert len(ours) > 60
    return {str(path.relative_to(DASHBOARD)): path.read_text().split("\n") for path in ours}


def test_no_line_is_longer_than_the_limit() -> None:
    wide = {
        f"{name}:{number}": len(line)
        for name, lines in written_by_hand().items()
        for number, line in enumerate(lines, 1)
        if len(line) > MAX_COLUMNS
    }
    assert not wide, f"break these lines: {wide}"


def test_no_script_has_more_lines_than_the_limit() -> None:
    scripts = {name: lines for name, lines in written_by_hand().items() if name.endswith((".js", ".ts"))}
    long = {name: len(lines) for name, lines in scripts.items() if len(lines) > MAX_LINES}
    assert not long, f"split these: {long}"


def test_the_types_of_the_libraries_are_those_of_the_vendored_versions() -> None:
    installed = json.loads((DASHBOARD / "checks" / "package.json").read_text())["devDependencies"]
    vendored = {library.name: library.version for library in LIBRARIES if library.types}
    assert vendored
    assert {name: installed[name] for name in vendored} == vendored
