"""After kill -9, the last complete checkpoint still exists, and an interrupted token cache can be built again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.checkpoint import CheckpointManager
from common.config import DataConfig
from common.data import END_OF_TEXT, open_corpus
from tests.paths import ROOT

SAVE_FOREVER = """
import sys
from pathlib import Path
import torch
from common.checkpoint import CheckpointManager
manager = CheckpointManager(Path(sys.argv[1]), keep_last=2)
step = 0
while True:
    step += 1
    weights = {"w": torch.full((300, 1000), float(step))}
    manager.save(step, weights, {"step": step, "moment": torch.full((600, 1000), float(step))}, meta={})
    manager.prune()
    print(step, flush=True)
"""

BUILD = """
import sys
from pathlib import Path
from common.config import DataConfig
from common.data import load_tokenizer, open_corpus
load_tokenizer()
print("ready", flush=True)
open_corpus(DataConfig(source=sys.argv[1]), data_dir=Path(sys.argv[2]))
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("seed", range(6))
def test_a_writer_killed_at_any_moment_leaves_its_last_complete_checkpoint(seed: int, tmp_path: Path) -> None:
    process = start(SAVE_FOREVER, str(tmp_path))
    reported = int(next_line(process))
    for _ in range(seed):
        reported = int(next_line(process))
    time.sleep(random.Random(seed).uniform(0.0, 0.05))  # the delay before the kill is random on purpose
    kill(process)
    manager = CheckpointManager(tmp_path, keep_last=2)
    latest = manager.latest()
    assert latest is not None and latest.step >= reported and manager.skipped == []
    weights, state = manager.load(latest)
    assert (weights["w"] == latest.step).all() and (state["moment"] == latest.step).all()
    assert state["step"] == latest.step


@pytest.mark.parametrize("seed", range(4))
def test_a_builder_killed_at_any_moment_does_not_block_the_next_one(seed: int, tmp_path: Path) -> None:
    text = f"\n{END_OF_TEXT}\n".join(f"Story {n}: the cat sat {'very ' * (n % 9)}still." for n in range(20_000))
    (tmp_path / "c.txt").write_text(text)
    process = start(BUILD, "c.txt", str(tmp_path))
    assert next_line(process) == "ready\n"
    time.sleep(random.Random(seed).uniform(0.0, 0.5))  # the delay before the kill is random on purpose
    kill(process)
    corpus = open_corpus(DataConfig(source="c.txt"), data_dir=tmp_path)
    assert len(corpus.documents("train")) + len(corpus.documents("validation")) == 20_000
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == ["", ".lock"]
