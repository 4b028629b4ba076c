"""Measure pretraining on a GPU in at most 8 minutes: tokens per second, share of the matrix-product rate, memory.

    python -m bench.pretrain_gpu [--quick] [--json] [--seconds 450]
    python -m bench.pretrain_gpu --device cpu --quick      # a self-test with a tiny model, whose figures mean nothing

`common.training.pretrain` trains the default model in bfloat16 with torch.compile, on sequences of 256 tokens, with
dropout 0.1 and 8 micro-batches per update. The reference is transformers' GPT-2 with the same shape, number of
parameters (its head is not tied to its embedding), dropout and batches, in bfloat16 autocast with torch.compile, SDPA,
clipping and the fused AdamW. Both alternate in one process; medians are printed. The micro-batch is 64 sequences, then
256, or 128 if 256 does not fit into the memory of the GPU (`--quick`: only 64).

The time of Tidal includes its whole loop: reading batches, hooks, metrics, all copies. The share of the
matrix-product rate counts 6 operations per token and weight of a matrix, and causal attention; the rate is measured at
8192 × 8192 and at the shapes of the model. The memory is the peak of the tensors of one side. The benchmark ends within
`--seconds`: a part that would take longer than the time left is skipped with a message.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpt2 import gpt2
from bench.products import operations_per_token, product_rate, product_shapes, synchronize
from bench.report import Row, main
from common.config.lm import LMConfig
from common.config.model import ModelConfig
from common.data import ChunkLoader
from common.metrics import names
from common.model.transfer import to_device
from common.training.hooks import NullHooks, StopRequest
from common.training.pretrain import pretrain

SECONDS = 450.0
"""Default time of the whole benchmark. With the start of Python, it ends within 8 minutes."""
ACCUMULATED = 8
"""Micro-batches per update, on both sides."""
FIRST_COMPILE_SECONDS = 100.0
"""Assumed time from the start of a model to its first measured round, used until such a time has been measured."""
GOAL = 1.2
"""Smallest allowed ratio of Tidal's tokens per second to those of the reference."""
MEMORY_GOAL = 1.0
PEER = "transformers GPT-2"


class Budget:
    """The time that the benchmark may take."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the seconds left."""
        return self._ends_at - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        """Return whether `seconds` are left; if not, print that `what` is skipped."""
        if self.left >= seconds:
            return True
        print_progress(f"skipped: {what} needs about {seconds:.0f} s, {max(self.left, 0.0):.0f} s are left")
        return False


def run(quick: bool, device: str = "cuda", seconds: float = SECONDS) -> list[Row]:
    """Measure all rows. Without a GPU, print a message and return no rows, unless `device` is "cpu"."""
    if device == "cuda" and not torch.cuda.is_available():
        print_progress("there is no CUDA device, so nothing is measured; --device cpu runs a self-test")
        return []
    budget, where = Budget(seconds), torch.device(device, 0) if device == "cuda" else torch.device(device)
    model, sizes, rounds = ModelConfig(), [[64]] if quick else [[64], [256, 128]], 5
    if where.type == "cpu":
        model = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=32, context_length=16, gate_hidden_dim=4)
        sizes, rounds = [[2]] if quick else [[2], [4]], 2
    square = 8192 if where.type == "cuda" else 128
    peak = product_rate(where, [(square, square, square)])
    print_progress(f"{device_name(where)}: {peak / 1e12:.4g} TFLOP/s in bfloat16 at {square} × {square}")
    rows: list[Row] = []
    compile_seconds = FIRST_COMPILE_SECONDS if where.type == "cuda" else 0.0
    with tempfile.TemporaryDirectory() as folder:
        for candidates in sizes:
            for size in candidates:
                if not budget.allows(f"micro-batch {size}", 2 * compile_seconds + 20.0 * (where.type == "cuda")):
                    continue
                comparison = Comparison(model, where, size, rounds, budget)
                try:
                    comparison.measure(Path(folder))
                except torch.OutOfMemoryError:
                    print_progress(f"micro-batch {size} does not fit into the memory of the GPU")
                    continue
                except Exception:  # the rows of the other sizes are printed nevertheless
                    traceback.print_exc()
                finally:
                    comparison.peer = None
                    free_memory()
                compile_seconds = max(comparison.compile_seconds, default=compile_seconds)
                rows += comparison.rows(peak)
                break
    print_progress(f"{budget.left:.0f} of {seconds:.0f} s are left")
    return rows


class Comparison(NullHooks):
    """Hooks of a training that run the reference between its rounds, and end the training after the last round.

    A round is one report of metrics, that is, `log_every_steps` updates. The first one also compiles the model.
    """

    def __init__(self, model: ModelConfig, device: torch.device, size: int, rounds: int, budget: Budget) -> None:
        self.model, self.device, self.size, self.rounds, self.budget = model, device, size, rounds, budget
        self.updates = 1024 // size if device.type == "cuda" else 1
        self.tokens = self.updates * ACCUMULATED * size * model.context_length
        """Tokens of a round."""
        self.ours: list[float] = []
        """Tokens per second of Tidal in each measured round."""
        self.peers: list[float] = []
        self.memory: list[int] = []
        """Peak memory of Tidal in bytes, then that of the reference."""
        self.compile_seconds: list[float] = []
        self.peer: Peer | None = None
        self.request: StopRequest | None = None
        self.started_at = time.monotonic()
        self._reports = 0
        self._memory_before = 0

    def measure(self, folder: Path) -> None:
        """Run the training and the reference alternately."""
        # The corpus is a whole number of updates, because a smaller batch at the end of an epoch is compiled again.
        train, validation = folder / f"train-{self.size}.txt", folder / f"validation-{self.size}.txt"
        write_words(train, max(2048, ACCUMULATED * self.size), self.model.context_length)
        write_words(validation, self.size, self.model.context_length)
        settings = {
            "model": {**self.model.model_dump(), "name": "bench"},
            "data": {"source": str(train), "validation_source": str(validation)},
            "training": {
                "epochs": 1_000_000,
                "effective_batch_size": ACCUMULATED * self.size,
                "micro_batch_size": self.size,
                "modulation_fraction": 0.0,
                "log_every_steps": self.updates,
                "device": str(self.device),
                "precision": "bf16",
                "compile": "on" if self.device.type == "cuda" else "off",
            },
            "evaluation": {"every_steps": 10**9, "max_batches": 1, "batch_size": self.size},
            "checkpoint": {"every_seconds": 1e6},
        }
        self._memory_before = self._reset_memory()
        pretrain(LMConfig.model_validate(settings), folder / f"run-{self.size}", self, data_dir=folder, resume=False)

    def requested_stop(self) -> StopRequest | None:
        """Return STOP once all rounds are measured."""
        return self.request

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """End a round of the training, and run a round of the reference."""
        if names.LOSS not in values:
            self.started_at = time.monotonic()  # after the validation that precedes the first step
            return
        synchronize(self.device)
        elapsed = time.monotonic() - self.started_at
        self._reports += 1
        if self._reports == 1:
            self.compile_seconds.append(elapsed)
            print_progress(f"micro-batch {self.size}, Tidal: first round in {elapsed:.1f} s")
        else:
            self.ours.append(self.tokens / elapsed)
            if self._reports == 2:
                self.memory.append(self._peak() - self._memory_before)
                self._start_peer()
            elif self.peer is not None:
                self.peers.append(self.tokens / self.peer.seconds(self.updates))
        if len(self.ours) > self.rounds or (self.ours and self.budget.left < 4 * elapsed + 10):
            self.request = StopRequest.STOP
        self._reset_memory()
        self.started_at = time.monotonic()

    def rows(self, peak: float) -> list[Row]:
        """Return the rows of this micro-batch, given the operations per second of the square matrix product."""
        label = f"pretraining, micro-batch {self.size} × {self.model.context_length}"
        if not self.ours:
            return []
        ours = statistics.median(self.ours[1:] or self.ours)
        rows = []
        if self.peers:
            peer = statistics.median(self.peers)
            rows.append(Row(label, "tokens/s", ours, peer, PEER, GOAL, "at least"))
        achieved = ours * operations_per_token(self.model) / 1e12
        shapes = product_rate(self.device, product_shapes(self.model, self.size * self.model.context_length)) / 1e12
        limits = ((peak / 1e12, "square matrix product"), (shapes, "matrix products of the model's shapes"))
        for reference, name in limits:
            rows.append(Row(f"{label}, operations", "TFLOP/s", achieved, reference, name, 0.0, "at least"))
        if len(self.memory) == 2 and min(self.memory) > 0:
            mine, other = (each / 2**20 for each in self.memory)
            rows.append(Row(f"{label}, peak memory", "MiB", mine, other, PEER, MEMORY_GOAL, "at most"))
        return rows

    def _start_peer(self) -> None:
        if not self.budget.allows("the reference", 1.5 * self.compile_seconds[0]):
            self.request = StopRequest.STOP
            return
        base = self._reset_memory()
        started = time.monotonic()
        self.peer = Peer(self.model, self.device, self.size)
        self.peer.seconds(1)
        self.compile_seconds.append(time.monotonic() - started)
        print_progress(f"micro-batch {self.size}, transformers: first update in {self.compile_seconds[1]:.1f} s")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.peer.seconds(1)
        self.memory.append(self._peak() - base)

    def _reset_memory(self) -> int:
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return int(torch.cuda.memory_allocated(self.device))

    def _peak(self) -> int:
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else 0


class Peer:
    """The reference: GPT-2 of transformers and a plain training loop, which reads its loss once per update."""

    def __init__(self, shape: ModelConfig, device: torch.device, size: int) -> None:
        self.device = device
        self.model: Any = gpt2(shape).to(device).train()
        self.forward: Any = torch.compile(self.model, dynamic=False) if device.type == "cuda" else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        count = 64 * size * (shape.context_length + 1)
        tokens = torch.randint(0, shape.vocab_size, (count,)).numpy().astype("uint16")
        self.loader = ChunkLoader(tokens, context_length=shape.context_length, batch_size=size)

    def seconds(self, updates: int) -> float:
        """Take `updates` updates and return the seconds they took."""
        synchronize(self.device)
        started = time.monotonic()
        for _ in range(updates):
            total = torch.zeros((), device=self.device)
            for _ in range(ACCUMULATED):
                ids = to_device(self.loader.next_batch()[0], self.device)
                with torch.autocast(self.device.type, dtype=torch.bfloat16):
                    loss: Tensor = self.forward(input_ids=ids, labels=ids, use_cache=False).loss
                torch.autograd.backward(loss / ACCUMULATED)
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            float(total)
        synchronize(self.device)
        return time.monotonic() - started


def write_words(path: Path, documents: int, tokens: int) -> None:
    """Write documents of `tokens` random words that are one token each. The speed does not depend on the text."""
    chooser = random.Random(7)
    words = ["the", "cat", "dog", "ran", "saw", "little", "big", "red", "ball", "tree", "home", "and", "then", "happy"]
    texts = (" ".join(chooser.choices(words, k=tokens)) for _ in range(documents))
    path.write_text("<|endoftext|>".join(texts), encoding="utf-8")


def free_memory() -> None:
    """Return unused GPU memory, so that the next size starts with an empty cache."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def print_progress(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a self-test with a tiny model")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time after which the benchmark ends")


if __name__ == "__main__":
    main(run, __doc__, add_options)
