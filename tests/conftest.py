"""For every test: the same random numbers at its start, so that what passes once passes again."""

from __future__ import annotations

import random
import sys

import pytest


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seeds the libraries that are loaded; loading torch for a test that needs none would cost seconds."""
    random.seed(20)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(20)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20)
