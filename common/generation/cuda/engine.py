"""Continuous batching for an accelerator: what `DecodingEngine` does, by steps that run ahead of the host.

    engine = new_engine(model)      # on a GPU this one, elsewhere `DecodingEngine`

The device draws and decodes up to `ahead` tokens per row before the host has looked at the first of them. The host
reads texts, finds stop strings and says who has left; tokens drawn behind the end of a text are thrown away. The
results are those of `DecodingEngine`: the noise is a function of seed and step. Leaves out: the steps (`step`) and
their launches (`batch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.generation.continuation import Continuation
from common.generation.cuda.batch import Flight, StaticBatch
from common.generation.decoding_model import DecodingModel
from common.generation.engine import DecodingEngine, OnToken

AHEAD = 4
"""Steps in flight: one of the default model takes some tenths of a millisecond, about what the host needs for it."""


class BatchEngine(Protocol):
    """What both engines offer."""

    model: DecodingModel

    @property
    def active(self) -> Sequence[Continuation]:
        """The rows."""

    @property
    def nbytes(self) -> int:
        """Memory of the batch, without the weights."""

    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill these prompts and take them into the batch; not between `draw` and `advance`."""

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """One token for every row: `draw`, then `advance`."""

    def draw(self, on_token: OnToken | None = None) -> list[Continuation]:
        """A token for every row; returns the continuations that have left."""

    def advance(self) -> None:
        """Give the drawn tokens to the model."""


def new_engine(model: DecodingModel, *, slots: int = 1) -> BatchEngine:
    """The engine for the model's device; `slots` rows are expected."""
    if model.device.type == "cuda":
        return DeviceEngine(model, slots=slots)
    return DecodingEngine(model)


class DeviceEngine:
    """One running batch over one model. Not for several threads. `graphs` and `compiled` as in `GraphSteps`."""

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
            raise ValueError(f"ahead {ahead} is below 1, the step that is waited for")
        self.model = model
        self._ahead = ahead
        self._batch = StaticBatch(model, slots=slots, graphs=graphs, compiled=compiled)
        self._active: dict[Continuation, None] = {}

    @property
    def active(self) -> list[Continuation]:
        """The rows, in the order in which they joined."""
        return list(self._active)

    @property
    def nbytes(self) -> int:
        """Memory of the batch, without the weights."""
        return self._batch.nbytes

    @property
    def captured(self) -> int:
        """Kinds of steps that are replayed."""
        return self._batch.steps.captured

    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill these prompts and take them into the batch. Their first tokens come after those in flight."""
        if not continuations:
            return
        joined = self._batch.join(
            continuations,
            [its.settings for its in continuations],
            [its.seed for its in continuations],
            [its.result.prompt_token_ids for its in continuations],
            [its.model_input for its in continuations],
        )
        for continuation, (truncated, scores) in zip(continuations, joined, strict=True):
            self._active[continuation] = None
            continuation.prefilled(truncated, scores)

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """`draw`, then `advance`."""
        left = self.draw(on_token)
        self.advance()
        return left

    def draw(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Wait for the oldest step and read its tokens. Returns the continuations that have left meanwhile."""
        left = self._remove_ended()
        self.advance()
        while self._batch.flights:
            flight = self._batch.land()
            if self._record(flight, on_token):
                break  # otherwise nobody in it is here any more
        return left + self._remove_ended()

    def advance(self) -> None:
        """Launch as many steps as may be in flight."""
        while len(self._batch.flights) < self._ahead and self._batch.launchable:
            self._batch.launch()

    def _remove_ended(self) -> list[Continuation]:
        left = [continuation for continuation in self._active if continuation.ended]
        for continuation in left:
            del self._active[continuation]
        self._batch.leave(left)
        return left

    def _record(self, flight: Flight, on_token: OnToken | None) -> bool:
        """Whether a row of the flight is still in the batch."""
        numbers: list[list[float]] = flight.numbers.tolist()
        present = False
        for row, owner in enumerate(flight.owners):
            if not isinstance(owner, Continuation) or owner not in self._active:
                continue
            present = True
            if owner.ended:
                continue
            likeliest: list[tuple[int, float]] = []
            if flight.likeliest is not None and owner.settings.top_log_probs:
                ids, log_probs = flight.likeliest
                likeliest = list(zip(ids[row].tolist(), log_probs[row].tolist(), strict=True))
            token, *rest = numbers[row]
            step = owner.record(int(token), rest, likeliest)
            if step is not None and on_token is not None:
                on_token(owner, step)
            if not owner.ended and owner in flight.dropped:
                owner.result.truncated = flight.dropped[owner]
        return present
