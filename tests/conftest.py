"""Gives each test one thread and the same random seed, so that its results are reproducible."""

from __future__ import annotations

import os
import random
import sys

import pytest

# Three test processes and their trainers share two cores. With more threads, they would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Workers that tests start must not measure the speed of the machine, because that would slow the other tests down.
os.environ.setdefault("TIDAL_CALIBRATE", "false")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed the random number generators of those libraries that are imported already.

    Torch is not imported here, because that would take seconds for every test process.
    """
    random.seed(20)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(20)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20)
