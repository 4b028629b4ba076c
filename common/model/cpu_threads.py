"""Runs independent parts of a computation in threads. Each thread uses one core for its operations.

torch splits each operation over the cores and waits for all of them at its end. A chain of many small operations thus
waits thousands of times per step, each time for the slowest core, and for milliseconds if another process has that
core. With parts of the chain in threads of their own, there is one wait at the end, and the data of a part stays in the
cache of its core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_on_cores(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Return the results of `function` for all `parts`, in their order, computed in `torch.get_num_threads()` threads.

    `function` runs without gradients and without autocast. The result does not depend on timing. If `function` raises
    for some parts, the exception of the first of these parts is raised after all calls have ended.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return [function(part) for part in parts]

    def without_gradients(part: T) -> R:
        with torch.no_grad():
            return function(part)

    pool = _pool(threads)
    futures = [pool.submit(without_gradients, part) for part in parts]
    wait(futures)
    return [future.result() for future in futures]


def split_evenly(count: int, parts: int) -> list[slice]:
    """Return at most `parts` consecutive ranges of about equal size, none of them empty, which cover 0..count − 1."""
    ends = [count * i // parts for i in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends) if end > start]


# This is a dictionary and not `functools.lru_cache`, which torch.compile ignores: compiled code would start new threads
# at each call.
_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    pool = _pools.get(threads)
    if pool is None:
        pool = _pools[threads] = ThreadPoolExecutor(threads, "cpu-core", initializer=_use_one_core)
        list(pool.map(_wait_for_all, [threading.Barrier(threads)] * threads))  # start every thread now
        # torch stores the number set in `_use_one_core` for each thread, but also as the default of threads that start
        # later. Restore this default.
        torch.set_num_threads(threads)
    return pool


def _use_one_core() -> None:
    torch.get_num_threads()  # torch initialises this thread's number now; later, that would overwrite the 1
    torch.set_num_threads(1)


def _wait_for_all(barrier: threading.Barrier) -> None:
    barrier.wait()
