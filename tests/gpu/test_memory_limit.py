"""The setting TIDAL_GENERATOR_GPU_MB limits the GPU memory of the engine process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from services.generator.engine_child import engine_settings, set_up_device
device = set_up_device(engine_settings())
held = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
try:
    torch.empty(512 * 2**20, dtype=torch.uint8, device=device)
except torch.OutOfMemoryError:
    print("refused")
"""


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "auto"])
def test_the_engine_takes_no_more_than_it_may(name: str) -> None:
    environment = {**os.environ, "TIDAL_GENERATOR_DEVICE": name, "TIDAL_GENERATOR_GPU_MB": "256"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=100)
    assert done.stdout == "refused\n", done.stderr
