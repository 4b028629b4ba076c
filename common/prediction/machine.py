"""Describes the machine on which a training runs: processor, GPU, memory and the versions that determine its speed.

Two machines with the same `key` are of the same kind: a calibration or a run of one of them applies to the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from common.redis.heartbeat import device_name

CPU = "cpu"
"""Name of the device of a machine without a GPU, as in `device_name`."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Machine(BaseModel):
    """A kind of machine."""

    model_config = ConfigDict(frozen=True)

    processor: str
    """Name of the processor's model."""
    cores: int
    """Number of processor cores that `os.cpu_count` reports, which is the default number of threads."""
    device: str
    """Model of the GPU; "cpu" without one."""
    torch: str
    """Version of torch; empty if it is not installed."""
    tidal: str
    """Version of Tidal."""

    @property
    def key(self) -> str:
        """Return 12 hexadecimal digits that identify this kind of machine."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def uses_gpu(self) -> bool:
        """Return whether a training with `device: auto` uses a GPU of this machine."""
        return self.device != CPU

    @property
    def description(self) -> str:
        """Return the device in words, such as "NVIDIA H200" or "AMD EPYC, 2 cores"."""
        return self.device if self.uses_gpu else f"{self.processor}, {self.cores} core{'' if self.cores == 1 else 's'}"


@cache
def this_machine() -> Machine:
    """Return the description of this machine. Does not import torch."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        device=device_name(),
        torch=_version("torch"),
        tidal=_version("tidal"),
    )


def memory_limit(limit: Path = _CGROUP_LIMIT) -> int:
    """Return the memory in bytes that processes may use: all of this machine, or less if a container limits it."""
    total = int(psutil.virtual_memory().total)
    try:
        text = limit.read_text().strip()
    except OSError:
        return total
    return min(total, int(text)) if text.isdigit() else total


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
