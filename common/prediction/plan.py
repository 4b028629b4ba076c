"""Counts the work of a pretraining: its steps, micro-batches, tokens and validations.

The counts follow `common.training.pretrain` and `common.data.loader`: chunks of T + 1 tokens, the remainder of the
corpus dropped, the last step of an epoch smaller, one short validation before the first step and a full one at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config.lm import LMConfig

INITIAL_VALIDATION_BATCHES = 16
"""Largest number of batches of the validation before the first step. Its loss is only a reference, so a few batches are
enough."""


@dataclass(frozen=True)
class CorpusSize:
    """The size of a corpus."""

    train_tokens: int
    validation_tokens: int
    text_bytes: int = 0
    """Bytes of text that have to be tokenised before the training; 0 if there is a token cache."""
    estimated: bool = False
    """Whether the numbers of tokens follow from the size of the text, because it has not been tokenised yet."""
    parts: tuple[CorpusSize, ...] = ()
    """The sizes of the single corpora if there are several, each of which is divided and validated on its own."""

    def train_chunks(self, length: int) -> int:
        """Return the number of sequences of `length` tokens in an epoch."""
        return sum(part.train_tokens // (length + 1) for part in self.parts or (self,))

    def validation_sequences(self, context: int, most: int | None) -> int:
        """Return the number of sequences of a validation, of which each corpus has at most `most`."""
        sizes = [part.validation_tokens for part in self.parts or (self,)]
        counts = [max(1, size // (min(context, max(1, size - 1)) + 1)) for size in sizes]
        return sum(min(count, most or count) for count in counts)


@dataclass(frozen=True)
class TrainingPlan:
    """The work that a training has still to do."""

    steps: int
    """Number of optimiser updates."""
    tokens: int
    """Number of tokens in all updates."""
    length: int
    """Number T of tokens of a sequence."""
    micro_batches: int
    """Number of forward and backward passes in all updates."""
    validations: int
    """Number of validations, without the one before the first step."""
    validation_tokens: int
    """Number of tokens of a validation."""
    initial_validation_tokens: int
    """Number of tokens of the validation before the first step; 0 if the training resumes."""
    samples: int
    """Number of times that sample texts are generated: every `evaluation.samples_every_steps` steps, and at the end."""


def plan_training(config: LMConfig, corpus: CorpusSize | None, first_step: int = 0) -> TrainingPlan | None:
    """Return the work of a training that continues after `first_step`.

    Without the size of the corpus, the work is known only if both `training.max_steps` and `evaluation.max_batches` are
    set, and if the corpus is large enough for that many steps; otherwise return None.
    """
    training, evaluation = config.training, config.evaluation
    context, effective = config.model.context_length, training.mean_batch_size
    if corpus is None:
        if training.max_steps is None or evaluation.max_batches is None:
            return None
        per_epoch, total, chunks = training.max_steps, training.max_steps, round(training.max_steps * effective)
        length = context
    else:
        length = max(1, min(context, corpus.train_tokens - 1))
        chunks = max(1, corpus.train_chunks(length))
        per_epoch = math.ceil(chunks / effective)
        total = min(training.epochs * per_epoch, training.max_steps or training.epochs * per_epoch)
    steps = max(0, total - first_step)

    def sequences(step: int) -> int:
        return step // per_epoch * chunks + min(chunks, round(step % per_epoch * effective))

    left = sequences(total) - sequences(min(first_step, total))
    last = max(0, total - 1)

    def between(every: int) -> int:
        """Return how many of the remaining steps, without the last one, have a number that `every` divides."""
        return last // every - min(first_step, last) // every

    def validated(batches: int | None) -> int:
        most = None if batches is None else batches * evaluation.batch_size
        return length * (corpus.validation_sequences(context, most) if corpus is not None else most or 0)

    limit = min(evaluation.max_batches or INITIAL_VALIDATION_BATCHES, INITIAL_VALIDATION_BATCHES)
    return TrainingPlan(
        steps=steps,
        tokens=left * length,
        length=length,
        micro_batches=math.ceil(left / training.micro_batch_size),
        validations=between(evaluation.every_steps or per_epoch) + 1,
        validation_tokens=validated(evaluation.max_batches),
        initial_validation_tokens=0 if first_step else validated(limit),
        samples=1 + (between(evaluation.samples_every_steps) if evaluation.samples_every_steps else 0),
    )
