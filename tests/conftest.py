"""For every test: one thread, and the same random numbers at its start, so that what passes once passes again."""

from __future__ import annotations

import os
import random
import sys

import pytest

# Three test processes and their trainers share two cores: threads that wait for each other would stand still.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seeds the libraries that are loaded; loading torch for a test that needs none would cost seconds."""
    random.seed(20)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(20)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20)
