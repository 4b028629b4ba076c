"""Environment variables of processes that compute with torch on a CPU; they act only when set before the start.

Measured on 2 cores with other processes beside (12 steps of the demonstration's pretraining): 860 ms of CPU time per
step without, 370 with the first, 210 with all. Leaves out: the number of threads, which the configuration sets.
"""

from __future__ import annotations

from collections.abc import Mapping

COMPUTE_ENVIRONMENT = {
    # OpenMP threads that wait for a preempted one sleep instead of burning the core it needs.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc keeps freed blocks instead of returning their pages, which every tensor over the vocabulary would fault in
    # again, zeroed, page by page. Bytes.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}


def with_compute_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with these variables where it does not set them itself."""
    return {**COMPUTE_ENVIRONMENT, **environ}
