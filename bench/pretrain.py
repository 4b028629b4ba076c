"""Measure the tokens per second of pretraining on a CPU, compared with two GPT-2 of the same size and with a limit.

The peers are the GPT-2 of the package transformers and a plain GPT-2 in nanoGPT's manner (`bench.pretrain_side`), each
eager and compiled by torch.compile. Every side runs in a child process and trains with micro-batch 8 × 256 and dropout
0.1; the processes take turns, and medians are compared. The limit is the time of the matrix products of one step alone,
measured in the same turns. Memory is the peak of a process's anonymous memory. Needs the package transformers (extra
`bench`) and, for the compiled peers, a C++ compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from typing import Any

from bench.pretrain_side import BATCH, LENGTH
from bench.report import Row, main
from common.config.compute_environment import with_compute_environment

EAGER_PEERS = ["transformers", "plain"]
COMPILER_MISSING = "no C++ compiler: the compiled peers are not measured"


class Side:
    """A child process that trains one side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.peak = 0
        environment = with_compute_environment(os.environ) if name == "tidal" else dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.pretrain_side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def train(self, steps: int, *, record: bool = True) -> None:
        """Take `steps` optimiser steps and record the seconds per step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench.pretrain_side {self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        self.peak = answer["peak"]
        if record:
            self.seconds.append(answer["seconds"] / steps)

    @property
    def speed(self) -> float:
        """Return the median tokens per second."""
        return BATCH * LENGTH / statistics.median(self.seconds)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run(quick: bool) -> list[Row]:
    """Measure all sides in turns: 5 rounds of 2 steps, or 2 rounds of 1 step without compiled peers when `quick`."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    compiled = [f"{name}-compiled" for name in EAGER_PEERS] if compiler and not quick else []
    if not compiled:
        print("quick: the compiled peers are not measured" if compiler else COMPILER_MISSING, file=sys.stderr)
    sides = {name: Side(name) for name in ["tidal", "products", *EAGER_PEERS, *compiled]}
    try:
        for side in sides.values():
            print(f"warming up {side.name} …", file=sys.stderr, flush=True)
            side.train(1, record=False)
        rounds, steps = (2, 1) if quick else (5, 2)
        for number in range(rounds):
            for side in sides.values():
                side.train(steps)
            speeds = ", ".join(f"{side.name} {side.speed:.0f}" for side in sides.values())
            print(f"round {number + 1} of {rounds}, median tokens/s: {speeds}", file=sys.stderr, flush=True)
    finally:
        for side in sides.values():
            side.close()
    ours, limit = sides["tidal"], sides["products"]
    eager = max((sides[name] for name in EAGER_PEERS), key=lambda side: side.speed)
    rows = [_speed_row(ours, eager, 1.1)]
    if compiled:
        fastest = max((sides[name] for name in EAGER_PEERS + compiled), key=lambda side: side.speed)
        bound = min(1.2, 0.8 * limit.speed / fastest.speed)
        rows.append(_speed_row(ours, fastest, bound))
    rows.append(_speed_row(ours, limit, 0.75))
    peer = sides["transformers"]
    rows.append(
        Row("peak anonymous memory", "MB", ours.peak / 1e6, peer.peak / 1e6, "transformers", 0.6, "at most"),
    )
    return rows


def _speed_row(ours: Side, reference: Side, bound: float) -> Row:
    name = "matrix products alone" if reference.name == "products" else reference.name
    return Row("pretraining, 8 × 256", "tokens/s", ours.speed, reference.speed, name, bound, "at least")


if __name__ == "__main__":
    main(run, __doc__)
