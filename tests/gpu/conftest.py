"""Fixtures for tests on an accelerator. Without a CUDA device, only `test_same_texts` runs, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

AVAILABLE = any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))
if AVAILABLE:  # Without a device file there is no CUDA device, so the slow import of torch is not necessary.
    from torch import cuda

    AVAILABLE = cuda.is_available()
NEED_CUDA = ["test_captured_steps.py", "test_memory_limit.py"]

collect_ignore = [] if AVAILABLE else NEED_CUDA


@pytest.fixture
def device() -> torch.device:
    """Return the CUDA device, or the CPU if there is none."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if AVAILABLE else torch.device("cpu")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the test files that were skipped."""
    if not AVAILABLE:
        terminalreporter.write_line(
            f"tests/gpu: {', '.join(NEED_CUDA)} skipped, because this machine has no CUDA device"
        )
