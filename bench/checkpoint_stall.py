"""Measure how long a checkpoint of the default model interrupts training, and how long it delays a stop request.

The first figure is the time for which training is interrupted while a checkpoint copies 30.6 M parameters and both
moments of AdamW to host memory (367 MB). Its reference is a numpy copy of the same arrays into new memory, because both
copies are limited by the speed of memory. The benchmark alternates between checkpoints and reference copies. The second
figure is the time to write a whole checkpoint synchronously, which has to end before a training can stop. Its reference
is the time limit of 15 s for a stop.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.report import Row, main
from common.checkpoint import CheckpointManager, CheckpointWriter
from common.config import LMConfig
from common.data import ChunkLoader
from common.model import TransformerLM
from common.training.device import prepare_compute
from common.training.hooks import NullHooks
from common.training.optimizer import make_optimizer
from common.training.training_state import TrainingState

STOP_PROMISE_SECONDS = 15.0


def run(quick: bool) -> list[Row]:
    """Measure nine checkpoints, or five when `quick`."""
    config = LMConfig.model_validate({"training": {"device": "cpu"}})
    compute = prepare_compute(config.training)
    model = TransformerLM(config.model)
    optimizer = make_optimizer(model, config.training)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loader = ChunkLoader(np.zeros(2048, dtype=np.uint16), context_length=256, batch_size=1)
    stalls, references, written = [], [], []
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        manager = CheckpointManager(Path(folder) / "checkpoints", keep_last=1)
        writer = CheckpointWriter(manager, NullHooks())
        state = TrainingState(model, optimizer, compute.scaler(), loader, compute, writer, corpus_digest="none")
        arrays = [tensor.numpy() for tensor in _tensors(model, optimizer)]
        for turn in range(5 if quick else 9):
            state.take_step(lambda: torch.zeros(()), 0, 0.0)
            started = time.perf_counter()
            state.save_in_background()
            stalls.append(time.perf_counter() - started)
            writer.close()  # wait for the background write, so that it does not slow down the reference copy
            writer = state.writer = CheckpointWriter(manager, NullHooks())
            started = time.perf_counter()
            copies = [array.copy() for array in arrays]
            references.append(time.perf_counter() - started)
            del copies
            if turn % 2 == 0:
                state.take_step(lambda: torch.zeros(()), 0, 0.0)
                started = time.perf_counter()
                state.save()
                written.append(time.perf_counter() - started)
    size = sum(array.nbytes for array in arrays) / 1e6
    return [
        Row(
            f"interruption of training by a checkpoint of {size:.0f} MB, median",
            "s",
            statistics.median(stalls),
            statistics.median(references),
            "numpy copy of the same arrays",
            2.0,
            "at most",
        ),
        Row(
            f"time to write a checkpoint of {size:.0f} MB at a stop (slowest)",
            "s",
            max(written),
            STOP_PROMISE_SECONDS,
            "time limit for a stop",
            0.6,
            "at most",
        ),
    ]


def _tensors(model: TransformerLM, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    moments = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    return [*(tensor.detach() for tensor in model.state_dict().values()), *moments]


if __name__ == "__main__":
    main(run, __doc__)
