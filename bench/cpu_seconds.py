"""Reads the CPU seconds of the processes of a running stack, keyed by the names that `tidal status` shows.

The time of a child that has exited counts for its parent. The trainer has its own entry.
"""

from __future__ import annotations

from typing import Any

import psutil

from bench.local_stack import RunningStack
from tidal_client.local_instance import read_instance

TRAINER = "trainer"
_CHILDREN = {"services.trainer": TRAINER, "services.generator.engine_child": "engine"}
"""The processes that workers start, as {Python module that the process runs: name of the process}."""


def by_process(stack: RunningStack) -> dict[str, float]:
    """Return {name of the process: user plus system seconds so far}."""
    instance = read_instance(stack.folder)
    if instance is None:
        raise RuntimeError(f"the stack in {stack.folder} is not running")
    names = {state.pid: name for name, state in instance.processes.items() if state.pid is not None}
    seconds = {"supervisor": 0.0, **dict.fromkeys(names.values(), 0.0)}
    _add(psutil.Process(stack.process.pid), "supervisor", names, seconds)
    return seconds


def trainer(stack: RunningStack) -> Any:
    """Return the psutil.Process of the stack's trainer. Raises RuntimeError unless exactly one trainer runs."""
    found = [
        child for child in psutil.Process(stack.process.pid).children(recursive=True) if _module_name(child) == TRAINER
    ]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} trainers are running; the benchmark needs exactly one")
    return found[0]


def of_process(process: Any) -> float:
    """Return the user plus system seconds of one process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _add(process: Any, name: str, names: dict[int, str], seconds: dict[str, float]) -> None:
    try:
        times = process.cpu_times()
        children = process.children()
    except psutil.NoSuchProcess:
        return
    seconds.setdefault(name, 0.0)
    seconds[name] += times.user + times.system + times.children_user + times.children_system
    for child in children:
        _add(child, names.get(child.pid) or _module_name(child) or name, names, seconds)


def _module_name(process: Any) -> str | None:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return None
    return next((_CHILDREN[argument] for argument in arguments if argument in _CHILDREN), None)
