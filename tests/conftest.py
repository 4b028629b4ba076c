"""Gives every test one thread and the same random numbers at its start, so that results are reproducible."""

from __future__ import annotations

import os
import random
import sys

import pytest

# Three test processes and their trainers share two cores; more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed the libraries that are already imported; importing torch for every test would take seconds."""
    random.seed(20)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(20)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20)
