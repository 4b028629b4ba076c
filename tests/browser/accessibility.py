"""The accessibility check of a page."""

from __future__ import annotations

from tests.browser.conftest import ROOT

AXE = ROOT / "tests" / "data" / "axe" / "axe.min.js"
