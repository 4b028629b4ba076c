"""docs/architecture.md mentions every package of this project, and every path that it mentions exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.paths import ROOT

MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`((?:common|services|tests|docs|tidal_client)/[\w./-]*)`", MAP))


def test_every_package_is_named() -> None:
    packages = {
        f"{top}/{folder.name}"
        for top in ("common", "services", "tidal_client")
        for folder in (ROOT / top).iterdir()
        if _has_source(folder)
    }
    assert len(packages) > 20
    assert packages <= NAMED, f"add to docs/architecture.md: {sorted(packages - NAMED)}"


def test_every_named_path_exists() -> None:
    missing = sorted(name for name in NAMED if not (ROOT / name).exists())
    assert not missing, f"docs/architecture.md names paths that do not exist: {missing}"


def _has_source(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix in (".py", ".html") for path in folder.rglob("*"))
