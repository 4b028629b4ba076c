"""Count the steps that are lost or repeated when a disk fills up during a run.

A local stack trains a tiny model and keeps its experiments on a small separate file system. The benchmark fills this
file system until less space is free than the configured reserve, and the trainer waits longer than the time after which
a hanging trainer is killed. Three cases are measured. In the first, space is freed and the job continues by itself. In
the second, the waiting job is paused, space is freed, and the job is resumed. In the third, the waiting job is stopped,
space is freed, and a new job resumes from its checkpoint. No step may be lost or repeated: the metrics files must
contain every step exactly once. Needs root to mount the file system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.local_stack import RunningStack, local_stack
from bench.report import Row, main
from common.disk import MIB, free_bytes
from common.metrics import names
from tidal_client import Client, Job
from tidal_client.vocabulary import WAITING_FOR_DISK

SIZE_MB, RESERVE_MB, LEFT_MB = 300, 64, 45
STEPS = 400
SILENCE_SECONDS = 15.0
"""Seconds without progress after which a trainer is killed. In the first case, the trainer waits for free space
longer than this."""
LIMIT_SECONDS = 300.0
CONFIG: dict[str, Any] = {
    "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "context_length": 16},
    "data": {"source": "builtin:stories", "max_documents": 200},
    "training": {
        "effective_batch_size": 2,
        "micro_batch_size": 2,
        "max_steps": STEPS,
        "epochs": 1000,
        "threads": 1,
        "patience": 1_000_000,
    },
    "evaluation": {"max_batches": 2, "sample_tokens": 4},
    "checkpoint": {"every_steps": 100, "keep_last": 2},
}
SETTINGS = {
    "TIDAL_DISK_RESERVE_MB": str(RESERVE_MB),
    "TIDAL_NO_PROGRESS_SECONDS": "2",
    "TIDAL_PHASE_SECONDS": str(SILENCE_SECONDS),
}


def run(quick: bool) -> list[Row]:
    """Measure all three cases, or only the first one when `quick`."""
    endings: dict[str, Callable[[_SmallDiskStack], list[str]]] = {"space freed while the job waits": _freed}
    if not quick:
        endings |= {"job paused while it waits": _paused, "job stopped while it waits": _stopped}
    if not _may_mount():
        sys.stderr.write(
            "a small file system cannot be mounted; run this benchmark as root on a machine that allows mounts\n"
        )
        return []
    rows = []
    with _small_disk_stack() as stack:
        for name, ending in endings.items():
            started = time.monotonic()
            experiments = ending(stack)
            steps = [step for experiment in experiments for step in stack.steps(experiment)]
            lost, repeated = len(set(range(1, STEPS + 1)) - set(steps)), len(steps) - len(set(steps))
            sys.stderr.write(f"{name}: {len(steps)} steps in {time.monotonic() - started:.0f} s\n")
            what = f"disk full during a run, {name}: steps lost or repeated"
            rows.append(Row(what, "steps", lost + repeated, STEPS, "of the run", 0.0, "at most"))
    return rows


def _may_mount() -> bool:
    with tempfile.TemporaryDirectory(prefix="tidal-disk-") as folder:
        return os.geteuid() == 0 and _mount(folder) and subprocess.run(["umount", folder]).returncode == 0


def _mount(folder: str) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", folder]
    return subprocess.run(mount, capture_output=True).returncode == 0


class _SmallDiskStack:
    """A local stack whose experiments are on a small file system, and a client of its api."""

    def __init__(self, stack: RunningStack, disk: Path) -> None:
        self.client = Client(stack.instance.api_url, stack.instance.token)
        self.disk = disk

    def fill(self) -> None:
        """Fill the disk until `LEFT_MB` are free, which is less than the reserve."""
        with (self.disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes(self.disk) - LEFT_MB * MIB)

    def free(self) -> None:
        """Delete the file that `fill` wrote."""
        (self.disk / "ballast").unlink()

    def waiting_job(self) -> Job:
        """Submit a job, fill the disk during its training, and return the job once it waits for space."""
        job = self.client.submit_job("lm-training", config=CONFIG)
        self.wait_for(job, lambda now: (now.progress.step or 0) > 40)
        self.fill()
        return self.wait_for(job, lambda now: now.progress.phase == WAITING_FOR_DISK)

    def wait_for(self, job: Job, check: Callable[[Job], bool]) -> Job:
        """Poll the job until `check` returns True. Raises RuntimeError if the job fails or LIMIT_SECONDS pass."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not check(now := self.client.job(job.id)):
            if time.monotonic() > deadline or now.status == "failed":
                raise RuntimeError(f"job {job.id} is {now.status}, in the phase {now.progress.phase}")
            time.sleep(0.2)
        return now

    def steps(self, experiment_id: str) -> list[int]:
        """Return every step in the metrics files of an experiment, from all attempts of its job."""
        found = []
        for segment in (self.disk / experiment_id / "metrics").glob("metrics-*.jsonl"):
            for line in segment.read_text().splitlines():
                point = json.loads(line)
                if names.LOSS in point.get("values", {}):
                    found.append(int(point["step"]))
        return found


def _freed(stack: _SmallDiskStack) -> list[str]:
    job = stack.waiting_job()
    time.sleep(SILENCE_SECONDS + 3)
    current = stack.client.job(job.id)
    if (current.status, current.attempt, current.progress.step) != ("running", 1, job.progress.step):
        raise RuntimeError(f"the job did not wait: {current.status}, attempt {current.attempt}, {current.progress}")
    stack.free()
    ended = stack.wait_for(job, lambda now: now.ended)
    if (ended.status, ended.attempt) != ("completed", 1):
        raise RuntimeError(f"the job did not continue after space was freed: {ended.status}, attempt {ended.attempt}")
    return [job.experiment_id]


def _paused(stack: _SmallDiskStack) -> list[str]:
    job = stack.waiting_job()
    stack.client.signal_job(job.id, "pause")
    stack.wait_for(job, lambda now: now.status == "paused")
    stack.free()
    stack.client.signal_job(job.id, "resume")
    stack.wait_for(job, lambda now: now.status == "completed")
    return [job.experiment_id]


def _stopped(stack: _SmallDiskStack) -> list[str]:
    job = stack.waiting_job()
    stack.client.signal_job(job.id, "stop")
    stack.wait_for(job, lambda now: now.status == "cancelled")
    stack.free()
    again = stack.client.submit_job("lm-training", resume_from=job.id)
    stack.wait_for(again, lambda now: now.status == "completed")
    return [job.experiment_id, again.experiment_id]


@contextmanager
def _small_disk_stack() -> Iterator[_SmallDiskStack]:
    with tempfile.TemporaryDirectory(prefix="tidal-disk-") as folder:
        _mount(folder)
        try:
            with local_stack(settings={**SETTINGS, "TIDAL_EXPERIMENTS_DIR": folder}) as stack:
                yield _SmallDiskStack(stack, Path(folder))
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


if __name__ == "__main__":
    main(run, __doc__)
