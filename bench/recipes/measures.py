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
from common.data.token_cache import Tokens

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


def halves(corpus: Corpus) -> tuple[Tokens, Tokens]:
    """Return the validation text in two parts, split at the end of the document that is nearest to its middle.

    Raises ValueError for fewer than two documents.
    """
    tokens = np.asarray(corpus.validation[0 : len(corpus.validation)])
    ends = np.flatnonzero(tokens[:-1] == corpus.vocabulary.end_of_text_id) + 1
    if not len(ends):
        raise ValueError("the validation text has one document; at least two are needed, separated by <|endoftext|>")
    middle = int(ends[np.abs(ends - len(tokens) / 2).argmin()])
    return tokens[:middle], tokens[middle:]


def measure(model: nn.Module, logits: Logits, corpus: Corpus, context: int) -> dict[str, float]:
    """Return the figures of a trained model: those of the report, and the bits per byte by which arms are tuned.

    They are of different halves of the validation text, so that the tuning cannot fit what the report compares.
    """
    first, second = halves(corpus)
    loss, bits = evaluate(model, logits, corpus, context, tokens=second)
    _, tuning = evaluate(model, logits, corpus, context, tokens=first)
    return {"loss": loss, "bits_per_byte": bits, "tuning_bits_per_byte": tuning}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    logits: Logits,
    corpus: Corpus,
    context: int,
    batches: int | None = None,
    *,
    tokens: Tokens | None = None,
) -> tuple[float, float]:
    """Return (loss in nats per token, bits per byte) on `tokens`, by default the validation text.

    With `batches`, only that many batches at the beginning are read.
    """
    loader = ChunkLoader(
        corpus.validation[0 : len(corpus.validation)] if tokens is None else tokens,
        context_length=context,
        batch_size=PART,
        shuffle=False,
    )
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
