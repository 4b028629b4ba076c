"""The path of axe-core, a script with which tests check the accessibility of a page."""

from __future__ import annotations

from tests.paths import DATA

AXE = DATA / "axe" / "axe.min.js"
