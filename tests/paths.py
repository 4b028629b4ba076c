"""Where the repository and its test data are, for tests at any depth."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
PARITY = DATA / "parity"
CASES = DATA / "cases"
