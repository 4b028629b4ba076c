"""Measure the CPU time of all services during a training, and the CPU time that supervision adds to a training step.

The first figure is the CPU time (user and system) of all processes of a local stack except the trainer, divided by wall
time, during the pretraining of `tidal demo`. The documented limit is 3 % of one core. The second figure is the
trainer's CPU time per step. Its reference is `bench.bare_loop`, a plain torch loop with the same model in another
process. The two processes take turns of a few seconds; SIGSTOP suspends one while the other runs, so that both turns of
a pair have the same conditions. The confidence interval is a bootstrap over the pairs. Checkpoints are an hour apart,
and each process computes with one thread. CPU seconds of each process are printed to standard error.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.cpu_seconds import TRAINER, by_process, of_process, trainer
from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from common.config import load_lm_config
from common.config.child_environment import child_environment

LIMIT_SHARE = 0.03
WARM_UP_SECONDS = 15.0
TURN_SECONDS = 5.0
RESAMPLES = 10_000
START_LIMIT_SECONDS = 120.0


def run(quick: bool) -> list[Row]:
    """Measure the services for two minutes and compare 40 pairs of turns, or 30 s and 10 pairs when `quick`."""
    config = _config()
    with local_stack() as stack:
        _submit(stack, config)
        archive = _wait_for_steps(stack)
        time.sleep(WARM_UP_SECONDS)
        share = _share(stack, 30.0 if quick else 120.0)
        supervised = _Runner(trainer(stack), archive)
        with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
            bare = _start_bare(config, stack, Path(folder) / "steps.jsonl")
            try:
                pairs = _alternate(supervised, bare, 10 if quick else 40)
            finally:
                bare.process.kill()
                supervised.process.send_signal(signal.SIGCONT)
    return [share, _ratio(pairs)]


@dataclass
class _Runner:
    """One of the two training processes. `steps` is a file or folder with a line of JSON per training step."""

    process: Any
    steps: Path
    turns: list[tuple[float, float, float]] = field(default_factory=list)
    """Intervals in which the process ran: (begin, end, CPU seconds); times in seconds since 1970."""

    def take_turn(self) -> None:
        """Let the process run for TURN_SECONDS, then suspend it."""
        before, begin = of_process(self.process), time.time()
        self.process.send_signal(signal.SIGCONT)
        time.sleep(TURN_SECONDS)
        self.process.send_signal(signal.SIGSTOP)
        end = time.time()
        while self.process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        self.turns.append((begin, end, of_process(self.process) - before))

    def seconds_per_step(self) -> list[float]:
        """Return the CPU seconds per step of each turn. A step that spans two turns counts partly for each."""
        times = [_epoch(line["time"]) for line in _lines(self.steps) if "time" in line]
        turns = [[at for at in times if begin <= at <= end] for begin, end, _ in self.turns]
        usual = statistics.median(later - at for inside in turns for at, later in pairwise(inside))
        found: list[float] = []
        carried = 0.0
        for (begin, end, cpu), inside in zip(self.turns, turns, strict=True):
            begun = min(1.0, (end - inside[-1]) / usual if inside else carried + (end - begin) / usual)
            found.append(cpu / (len(inside) + begun - carried))
            carried = begun
        return found


def _config() -> dict[str, Any]:
    """Return the configuration of the pretraining of `tidal demo`, changed so that it does not end."""
    config = load_lm_config(ROOT / "configs" / "demo" / "lm.yaml").model_dump(mode="json")
    endless = 1_000_000_000
    config["training"] |= {
        "epochs": endless,
        "max_steps": endless,
        "max_seconds": None,
        "modulation_fraction": 0.0,
        "threads": 1,
        "device": "cpu",
        "log_every_steps": 1,
    }
    config["evaluation"]["every_steps"] = endless
    config["checkpoint"] |= {"every_steps": None, "every_seconds": 3600.0}
    return config


def _headers(stack: RunningStack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.instance.token}"}


def _submit(stack: RunningStack, config: dict[str, Any]) -> None:
    body = {"type": "lm-training", "config": config}
    httpx.post(f"{stack.instance.api_url}/api/jobs", json=body, headers=_headers(stack), timeout=30).raise_for_status()


def _wait_for_steps(stack: RunningStack) -> Path:
    """Wait until the trainer has written the metrics of a step. Return the folder of the metrics files."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while time.monotonic() < deadline:
        for path in Path(stack.instance.experiments_dir).glob("*/metrics"):
            if any(line.get("step", 0) > 1 for line in _lines(path)):
                return path
        time.sleep(0.2)
    raise RuntimeError(f"the training did not finish a step within {START_LIMIT_SECONDS:.0f} s")


def _share(stack: RunningStack, seconds: float) -> Row:
    before, began = by_process(stack), time.monotonic()
    time.sleep(seconds)
    after, wall = by_process(stack), time.monotonic() - began
    used = {name: value - before.get(name, 0.0) for name, value in after.items()}
    for name, value in sorted(used.items(), key=lambda item: -item[1]):
        sys.stderr.write(f"{name:<12} {value:8.2f} CPU s in {wall:.0f} s  {100 * value / wall:6.2f} %\n")
    ours = sum(value for name, value in used.items() if name != TRAINER)
    return Row("CPU time of all processes except the trainer", "s", ours, wall, "wall time", LIMIT_SHARE, "at most")


def _start_bare(config: dict[str, Any], stack: RunningStack, steps: Path) -> _Runner:
    with steps.open("wb") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "bench.bare_loop"],
            cwd=ROOT,
            env=child_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=output,
        )
    process.stdin.write(json.dumps({"config": config, "data_dir": stack.instance.data_dir}).encode())
    process.stdin.close()
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while len(_lines(steps)) < 20:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("bench.bare_loop did not finish 20 steps")
        time.sleep(0.2)
    return _Runner(process, steps)


def _alternate(supervised: _Runner, bare: _Runner, pairs: int) -> list[tuple[float, float]]:
    for runner in (supervised, bare):
        runner.process.send_signal(signal.SIGSTOP)
    for number in range(pairs):
        for runner in (supervised, bare) if number % 2 else (bare, supervised):
            runner.take_turn()
    supervised.process.send_signal(signal.SIGCONT)
    _wait_for_later_step(supervised)
    return list(zip(supervised.seconds_per_step(), bare.seconds_per_step(), strict=True))


def _wait_for_later_step(runner: _Runner) -> None:
    """Wait until a step after the last turn is written, because then all steps of the turns are."""
    last_turn, deadline = runner.turns[-1][1], time.monotonic() + START_LIMIT_SECONDS
    while not any(_epoch(line["time"]) > last_turn for line in _lines(runner.steps) if "time" in line):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the training wrote no step within {START_LIMIT_SECONDS:.0f} s after the last turn")
        time.sleep(0.05)


def _ratio(pairs: Sequence[tuple[float, float]]) -> Row:
    """Return the result row of the CPU time per step.

    The row counts as failed only if the whole confidence interval of the ratio is above 1.
    """
    rng = random.Random(1)
    resampled = sorted(_ratio_of_means(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    low, high = resampled[RESAMPLES // 40], resampled[-RESAMPLES // 40]
    ratio = _ratio_of_means(pairs)
    sys.stderr.write(
        f"supervised trainer over plain loop: {ratio:.4f}, 95 % interval {low:.4f} to {high:.4f}, {len(pairs)} pairs\n"
    )
    ours, bare_loop = (1000 * statistics.mean(pair[side] for pair in pairs) for side in (0, 1))
    return Row("CPU time of the trainer per step", "ms", ours, bare_loop, "plain loop", 1.0 + ratio - low, "at most")


def _ratio_of_means(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(ours for ours, _ in pairs) / sum(bare_loop for _, bare_loop in pairs)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file, or of all metrics files in a folder in ascending order of their numbers."""
    files = [path] if path.is_file() else sorted(path.glob("metrics-*.jsonl"), key=lambda p: int(p.stem.split("-")[-1]))
    texts = [line for file in files for line in file.read_text().split("\n")[:-1]]
    return [json.loads(text) for text in texts]


def _epoch(value: Any) -> float:
    return float(value) if isinstance(value, float | int) else datetime.fromisoformat(str(value)).timestamp()


if __name__ == "__main__":
    main(run, __doc__)
