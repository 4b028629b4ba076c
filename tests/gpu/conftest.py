"""Tests that need a CUDA device. Without one nothing here is collected, and the run says so."""

from __future__ import annotations

from pathlib import Path

import pytest

AVAILABLE = any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))
if AVAILABLE:  # otherwise torch is not loaded for nothing
    import torch

    AVAILABLE = torch.cuda.is_available()

collect_ignore_glob = [] if AVAILABLE else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """No test is left out silently."""
    if not AVAILABLE:
        terminalreporter.write_line("tests/gpu: left out, this machine has no CUDA device")
