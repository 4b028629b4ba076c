"""Paths of the repository and of its test data."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
PARITY = DATA / "parity"
CASES = DATA / "cases"
