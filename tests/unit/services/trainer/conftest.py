"""Fixtures that run a real child process over a real socketpair, with a configuration that trains in a second."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.artifacts import ArtifactStore
from common.child.protocol import Channel, ChildJob, Message, Start
from common.child.socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE
from common.config import LMConfig
from common.config.loader import merge
from common.training.hooks import NullHooks
from services.trainer.handlers import HANDLERS, JobPaths
from tests.paths import ROOT

NO_PAUSE = 3600.0
"""Seconds without a renewed lease after which a child suspends itself.

It is very long, because the tests do not renew the lease.
"""
SECONDS = 200.0
"""Longest time in seconds that a test waits for a message."""


@dataclass
class Child:
    """A trainer process whose supervisor is the test process."""

    process: subprocess.Popen[bytes]
    channel: Channel

    def next(self) -> Message:
        """Return the next message. Raises EOFError if the child has ended."""
        message = self.channel.receive(SECONDS)
        assert message is not None, f"no message within {SECONDS} s"
        return message

    def until(self, kind: type[Message]) -> list[Message]:
        """Return all messages up to and including the first of type `kind`."""
        seen = [self.next()]
        while not isinstance(seen[-1], kind):
            seen.append(self.next())
        return seen


@pytest.fixture
def start_child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Return the function `start_child(payload, job_type=…, attempt=…)`; experiments and data are below `tmp_path`."""
    children: list[Child] = []

    def start(
        payload: Mapping[str, Any], *, job_type: str = "lm-training", attempt: int = 1, experiment_id: str = "tiny"
    ) -> Child:
        channel, child_socket = Channel.pair()
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            CHILD_FD_VARIABLE: str(child_socket.fileno()),
            PARENT_PID_VARIABLE: str(os.getpid()),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "services.trainer"],
            cwd=tmp_path,
            env=environ,
            pass_fds=[child_socket.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        child_socket.close()
        child = Child(process, channel)
        children.append(child)
        job = ChildJob(
            job_id="job_1", attempt=attempt, job_type=job_type, experiment_id=experiment_id, payload=dict(payload)
        )
        channel.send(
            Start(
                job=job,
                experiments_dir=str(tmp_path / "experiments"),
                data_dir=str(tmp_path / "data"),
                pause_after_seconds=NO_PAUSE,
            )
        )
        return child

    yield start
    for child in children:
        child.process.kill()
        child.process.wait()
        child.channel.close()


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., LMConfig]:
    """Return the function `make_config(training={…}, …)`, which builds the tiny configuration; its corpus exists."""
    chooser = random.Random(7)
    words = ["the", "a", "cat", "dog", "Lily", "Tom", "ran", "saw", "found", "little", "big", "red", "ball", "tree"]
    documents = [" ".join(chooser.choices(words, k=chooser.randint(12, 24))) + "." for _ in range(60)]
    text = tmp_path / "data/words.txt"
    text.parent.mkdir()
    text.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    base = {
        "model": {"name": "tiny", "d_model": 8, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "context_length": 16},
        "data": {"source": "words.txt", "validation_fraction": 0.2},
        "training": {
            "max_steps": 6,
            "effective_batch_size": 4,
            "micro_batch_size": 2,
            "device": "cpu",
            "compile": "off",
            "threads": 1,
        },
        "evaluation": {"batch_size": 4, "max_batches": 2, "prompts": ["the cat"], "sample_tokens": 3},
    }

    def make(**sections: Mapping[str, Any]) -> LMConfig:
        return LMConfig.model_validate(merge(base, sections))

    return make


@pytest.fixture
def finished_model(make_config: Callable[..., LMConfig], tmp_path: Path) -> LMConfig:
    """Train the experiment `tiny` in the test process and return its configuration."""
    config = make_config()
    job = ChildJob(
        job_id="job_0",
        attempt=1,
        job_type="lm-training",
        experiment_id="tiny",
        payload={"config": config.model_dump(mode="json")},
    )
    HANDLERS["lm-training"](job, JobPaths(ArtifactStore(tmp_path / "experiments"), tmp_path / "data"), NullHooks())
    return config
