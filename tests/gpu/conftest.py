"""Fixtures for tests on an accelerator. Without a CUDA device only `test_same_texts` runs, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

AVAILABLE = any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))
if AVAILABLE:  # without a device file there is no need to import torch
    from torch import cuda

    AVAILABLE = cuda.is_available()
NEED_CUDA = ["test_captured_steps.py", "test_memory_limit.py"]

collect_ignore = [] if AVAILABLE else NEED_CUDA


@pytest.fixture
def device() -> torch.device:
    """Return the CUDA device, or the CPU without one."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if AVAILABLE else torch.device("cpu")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the test files that were left out."""
    if not AVAILABLE:
        terminalreporter.write_line(f"tests/gpu: {', '.join(NEED_CUDA)} left out, this machine has no CUDA device")
