"""Measures the largest memory that a training has used: anonymous host memory on a CPU, allocated memory on CUDA.

Linux counts the peak of the resident memory of a process (`VmHWM` in /proc/self/status), which includes pages of
files, such as libraries and the tokens of the corpus, that the kernel can drop. Their present size (`RssFile`) is
subtracted at every observation. It changes slowly, so a few observations per training are enough. For child
processes, such as those of torch.compile, the memory that they use at the time of an observation is added.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch

_STATUS = Path("/proc/self/status")


def anonymous_bytes(status: str) -> int:
    """Return the present anonymous memory in bytes from the text of a file /proc/<pid>/status."""
    return _kib(status, "RssAnon") * 1024


def peak_anonymous_bytes(status: str) -> int:
    """Return the peak of the anonymous memory in bytes, if the pages of files have kept their size since the peak."""
    return (_kib(status, "VmHWM") - _kib(status, "RssFile") - _kib(status, "RssShmem")) * 1024


class PeakMemory:
    """The peak of the memory since the process began (CUDA: since this object was created)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peak = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def observe(self) -> int:
        """Return the peak so far in bytes. Does not wait for the device."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        self._peak = max(self._peak, peak_anonymous_bytes(_STATUS.read_text()) + _children_bytes())
        return self._peak


def present_bytes(device: torch.device) -> int:
    """Return the memory that this process uses now in bytes: allocated on CUDA, anonymous on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return anonymous_bytes(_STATUS.read_text())


def _children_bytes() -> int:
    total = 0
    with contextlib.suppress(psutil.Error, OSError):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(OSError):
                total += anonymous_bytes(Path(f"/proc/{child.pid}/status").read_text())
    return total


def _kib(status: str, field: str) -> int:
    """Return the value of a field in KiB; 0 if the text lacks it, as for a process that has just ended."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    return 0
