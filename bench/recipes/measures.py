"""Bits per byte of a model on a stream of tokens, computed in the same way for our models and for the peer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.data import ChunkLoader, Corpus

BATCH = 16
"""Sequences per batch of a validation."""
PART = 4
"""Sequences per forward pass, so that the logits of GPT-2's vocabulary fit into memory."""
Logits = Callable[[Tensor], Tensor]
"""Returns logits (B, T, V) for input_ids (B, T)."""


@dataclass
class Curve:
    """The validations of a run."""

    points: list[tuple[int, float, float, float]] = field(default_factory=list)
    """(tokens, seconds, loss in nats, bits per byte), in the order of the training."""

    def add(self, tokens: int, seconds: float, loss: float, bits: float) -> None:
        """Add a validation, unless there is one after the same number of tokens."""
        if not self.points or self.points[-1][0] != tokens:
            self.points.append((tokens, round(seconds, 3), loss, bits))


def byte_lengths(corpus: Corpus) -> npt.NDArray[np.uint16]:
    """Return the number of bytes of each token of the corpus's vocabulary (V,); 0 for `<|endoftext|>`."""
    return corpus.vocabulary.byte_lengths


@torch.no_grad()
def evaluate(
    model: nn.Module, logits: Logits, corpus: Corpus, context: int, batches: int | None = None
) -> tuple[float, float]:
    """Return (loss in nats per token, bits per byte) on the validation text, or on its first `batches` batches."""
    loader = ChunkLoader(corpus.validation, context_length=context, batch_size=PART, shuffle=False)
    lengths = byte_lengths(corpus)
    was_training = model.training
    model.eval()
    nats, count, size = 0.0, 0, 0
    parts = None if batches is None else batches * BATCH // PART
    for input_ids, targets in islice(loader.batches(), parts):
        loss = functional.cross_entropy(logits(input_ids).flatten(0, 1), targets.flatten(), reduction="sum")
        nats, count = nats + float(loss), count + targets.numel()
        size += int(lengths[targets.numpy()].sum(dtype=np.int64))
    model.train(was_training)
    return nats / count, nats / (math.log(2) * size)
