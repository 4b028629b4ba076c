"""Computes validation loss, perplexity, bits per byte and sample texts of a language model, during training and at its
end.

Validation reads the held-out tokens from the first to the last, in non-overlapping chunks of the context length, and
uses no randomness: two validations of the same weights give the same loss. The comparison of controllers is in
`common.rl.ablation`.

Bits per byte are the summed loss in bits, divided by the number of UTF-8 bytes of the predicted tokens: loss ·
(tokens / bytes) / ln 2, as in "The Pile" (Gao et al., 2020, section 3.1). The first token of a chunk is not predicted,
so its bytes do not count. `<|endoftext|>` is predicted, so its loss counts, but it has 0 bytes. Hence the number is the
length of a code for the texts together with their ends.

If a training has several corpora, each is validated on its own. The loss of all is the mean of their losses, weighted
by their shares of the training tokens: the loss on a text that is mixed like the training's. Its bits per byte are this
loss in bits, divided by the mean number of bytes per token with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.lm import EvaluationConfig
from common.data import ChunkLoader, Corpus, text_bytes
from common.errors import require_finite
from common.files import write_atomic, write_json
from common.generation import DecodingModel, FinishReason, generate
from common.metrics import names
from common.model import TransformerLM
from common.model.transfer import to_device
from common.training.device import ComputeConfig
from common.training.loss import summed_loss
from tidal_client.vocabulary import GatingMode

RESULTS_FILE = "evaluation_results/evaluation_results.json"
SAMPLE_SEED = 1234


@dataclass(frozen=True)
class Validation:
    """The result of a validation."""

    loss: float
    """Mean of −ln p(token) in nats."""
    bits_per_byte: float | None
    """Summed loss in bits per UTF-8 byte of the predicted tokens; None if these tokens have no text."""
    corpora: tuple[CorpusValidation, ...] = ()
    """The results of each corpus if there are several."""

    @property
    def perplexity(self) -> float | None:
        """Return exp(loss), or None if that is too large for a float."""
        return math.exp(self.loss) if self.loss < 700.0 else None

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the validation; those that are None are left out."""
        values = {
            names.VALIDATION_LOSS: self.loss,
            names.PERPLEXITY: self.perplexity,
            names.BITS_PER_BYTE: self.bits_per_byte,
        }
        for corpus in self.corpora:
            values[names.OF_CORPUS.format(metric=names.VALIDATION_LOSS, corpus=corpus.name)] = corpus.loss
            values[names.OF_CORPUS.format(metric=names.BITS_PER_BYTE, corpus=corpus.name)] = corpus.bits_per_byte
        return {name: value for name, value in values.items() if value is not None}

    def results(self) -> dict[str, Any]:
        """Return the entries of `evaluation_results.json` that come from the validation."""
        found = {"validation_loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return found | ({"corpora": [asdict(corpus) for corpus in self.corpora]} if self.corpora else {})


@dataclass(frozen=True)
class CorpusValidation:
    """The validation of one corpus of several."""

    name: str
    share: float
    """Share of the training tokens that come from this corpus."""
    loss: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class _Sums:
    """The sums of a validation over its predicted tokens."""

    nats: float
    tokens: int
    size: int
    """Number of UTF-8 bytes of the tokens."""

    def result(self, **others: Any) -> Validation:
        return Validation(self.nats / self.tokens, _bits(self.nats, self.size), **others)


def validate_corpus(
    model: TransformerLM,
    corpus: Corpus,
    config: EvaluationConfig,
    compute: ComputeConfig,
    *,
    keep_going: Callable[[], bool] = lambda: True,
) -> Validation | None:
    """Call `validate` for the validation part of each corpus; return None if `keep_going` returned False.

    `config.max_batches` limits the batches of each corpus. Raises the errors of `validate`.
    """
    found = []
    for part in corpus.parts:
        sums = _sums(model, part.validation.tokens, config, compute, keep_going)
        if sums is None:
            return None
        found.append(sums)
    if len(found) == 1:
        return found[0].result()
    shares = [part.share for part in corpus.parts]
    loss = sum(share * sums.nats / sums.tokens for share, sums in zip(shares, found, strict=True))
    size = sum(share * sums.size / sums.tokens for share, sums in zip(shares, found, strict=True))
    return Validation(
        loss,
        _bits(loss, size),
        tuple(
            CorpusValidation(part.name, part.share, sums.nats / sums.tokens, _bits(sums.nats, sums.size))
            for part, sums in zip(corpus.parts, found, strict=True)
        ),
    )


def validate(
    model: TransformerLM,
    tokens: NDArray[np.uint16],
    config: EvaluationConfig,
    compute: ComputeConfig,
    *,
    keep_going: Callable[[], bool] = lambda: True,
) -> Validation | None:
    """Measure the loss of `model` without modulation; return None if `keep_going` returned False.

    Reads at most `config.max_batches` batches from the beginning of `tokens` and calls `keep_going` before each. Raises
    DataError for fewer than two tokens, DivergedError if the loss is not finite.
    """
    sums = _sums(model, tokens, config, compute, keep_going)
    return None if sums is None else sums.result()


def _sums(
    model: TransformerLM,
    tokens: NDArray[np.uint16],
    config: EvaluationConfig,
    compute: ComputeConfig,
    keep_going: Callable[[], bool],
) -> _Sums | None:
    loader = ChunkLoader(
        tokens, context_length=model.config.context_length, batch_size=config.batch_size, shuffle=False
    )
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=compute.device)
    positions = size = 0
    try:
        with torch.no_grad(), compute.autocast():
            for input_ids, targets in islice(loader.batches(), config.max_batches):
                if not keep_going():
                    return None
                loss = summed_loss(model, to_device(input_ids, compute.device), to_device(targets, compute.device))
                total += loss.double()
                positions += targets.numel()
                size += text_bytes(targets.numpy(), model.vocabulary)
    finally:
        model.train(was_training)
    nats = float(total)
    require_finite("the validation loss", nats / positions)
    return _Sums(nats, positions, size)


def _bits(nats: float, size: float) -> float | None:
    """Return bits per byte, or None without bytes."""
    return nats / (math.log(2) * size) if size else None


def generate_samples(
    model: TransformerLM, config: EvaluationConfig, *, cancelled: Callable[[], bool] = lambda: False
) -> list[dict[str, Any]] | None:
    """Generate a continuation of each configured prompt without gating, with the same seeds at every call.

    Each entry has the keys "prompt", "generated" (the continuation as text) and "tokens" (the number of generated
    tokens). `cancelled` is called before every token; when it returns True, the result is None.
    """
    packed = DecodingModel(model)
    samples: list[dict[str, Any]] = []
    for number, prompt in enumerate(config.prompts):
        generation = generate(
            packed,
            prompt,
            max_tokens=config.sample_tokens,
            gating_mode=GatingMode.NONE,
            temperature=config.temperature,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
            seed=SAMPLE_SEED + number,
            cancelled=cancelled,
        )
        if generation.finish_reason is FinishReason.CANCELLED:
            return None
        samples.append({"prompt": prompt, "generated": generation.text, "tokens": len(generation.token_ids)})
    return samples


def write_results(directory: Path, results: dict[str, Any]) -> Path:
    """Write `evaluation_results/evaluation_results.json` in the experiment's folder atomically and return its path."""
    path = directory / RESULTS_FILE
    write_atomic(path, lambda temporary: write_json(temporary, results))
    return path
