"""Continuous batching for an accelerator: the interface of `DecodingEngine` with steps that run ahead of the host.

    engine = new_engine(model)      # a `DeviceEngine` on a GPU, a `DecodingEngine` elsewhere

The device samples and decodes up to `ahead` tokens per sequence before the host has read the first of them. The host
assembles the texts, finds stop strings and removes ended sequences; tokens sampled after the end of a sequence are
discarded. The results are those of `DecodingEngine`, because the random numbers of a token depend only on the seed and
the step of its sequence. Steps are in `step`, and `batch` launches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.generation.continuation import Continuation
from common.generation.cuda.batch import InFlightStep, StaticBatch
from common.generation.decoding_model import DecodingModel
from common.generation.engine import DecodingEngine, OnToken

AHEAD = 4
"""Number of in-flight steps. A step of the default model takes some tenths of a millisecond on the device, and its
processing takes about as long on the host."""


class BatchEngine(Protocol):
    """The interface of both engines."""

    model: DecodingModel

    @property
    def active(self) -> Sequence[Continuation]:
        """The sequences in the batch."""

    @property
    def nbytes(self) -> int:
        """Return the memory of the batch in bytes, without the weights."""

    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill the prompts and add the sequences to the batch. Do not call this between `sample` and `advance`."""

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Generate one token for every sequence: `sample`, then `advance`."""

    def sample(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Sample a token for every sequence. Return the sequences that were removed from the batch."""

    def advance(self) -> None:
        """Decode the sampled tokens, which computes the logits of the next step."""


def new_engine(model: DecodingModel, *, slots: int = 1) -> BatchEngine:
    """Return the engine for the model's device. A `DeviceEngine` allocates memory for `slots` sequences in advance."""
    if model.device.type == "cuda":
        return DeviceEngine(model, slots=slots)
    return DecodingEngine(model)


class DeviceEngine:
    """One running batch over one model; not thread-safe. `graphs` and `compiled` are passed to `GraphSteps`."""

    def __init__(
        self,
        model: DecodingModel,
        *,
        slots: int = 1,
        ahead: int = AHEAD,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        if ahead < 1:
            raise ValueError(f"ahead {ahead} is below 1; at least one step must be in flight")
        self.model = model
        self._ahead = ahead
        self._batch = StaticBatch(model, slots=slots, graphs=graphs, compiled=compiled)
        self._active: dict[Continuation, None] = {}

    @property
    def active(self) -> list[Continuation]:
        """The sequences in the batch, in the order in which they joined."""
        return list(self._active)

    @property
    def nbytes(self) -> int:
        """Return the memory of the batch in bytes, without the weights."""
        return self._batch.nbytes

    @property
    def captured(self) -> int:
        """Number of captured CUDA graphs, one per step shape."""
        return self._batch.steps.captured

    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill the prompts and add the sequences to the batch. In-flight steps do not include these sequences."""
        if not continuations:
            return
        joined = self._batch.join(
            continuations,
            [continuation.settings for continuation in continuations],
            [continuation.seed for continuation in continuations],
            [continuation.result.prompt_token_ids for continuation in continuations],
            [continuation.model_input for continuation in continuations],
        )
        for continuation, (truncated, scores) in zip(continuations, joined, strict=True):
            self._active[continuation] = None
            continuation.record_prefill(truncated, scores)

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Generate one token for every sequence: `sample`, then `advance`."""
        removed = self.sample(on_token)
        self.advance()
        return removed

    def sample(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Wait for the oldest step and read its tokens. Return the sequences that were removed from the batch."""
        removed = self._remove_ended()
        self.advance()
        while self._batch.in_flight:
            launched = self._batch.collect_oldest()
            if self._record(launched, on_token):
                break  # otherwise all sequences of this step have been removed: collect the next step
        return removed + self._remove_ended()

    def advance(self) -> None:
        """Launch steps until `ahead` of them are in flight."""
        while len(self._batch.in_flight) < self._ahead and self._batch.can_launch:
            self._batch.launch()

    def _remove_ended(self) -> list[Continuation]:
        ended = [continuation for continuation in self._active if continuation.ended]
        for continuation in ended:
            del self._active[continuation]
        self._batch.remove(ended)
        return ended

    def _record(self, launched: InFlightStep, on_token: OnToken | None) -> bool:
        """Add the tokens of a step to their sequences. Return whether any of these sequences is still in the batch."""
        numbers: list[list[float]] = launched.numbers.tolist()
        present = False
        for slot, owner in enumerate(launched.owners):
            if not isinstance(owner, Continuation) or owner not in self._active:
                continue
            present = True
            if owner.ended:
                continue
            most_likely: list[tuple[int, float]] = []
            if launched.most_likely is not None and owner.settings.top_log_probs:
                ids, log_probs = launched.most_likely
                most_likely = list(zip(ids[slot].tolist(), log_probs[slot].tolist(), strict=True))
            token, *rest = numbers[slot]
            step = owner.record(int(token), rest, most_likely)
            if step is not None and on_token is not None:
                on_token(owner, step)
            if not owner.ended and owner in launched.dropped:
                owner.result.truncated = launched.dropped[owner]
        return present
