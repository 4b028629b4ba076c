"""The device's half of continuous batching: rows of a `StaticState`, steps that are launched ahead of the host.

    batch = StaticBatch(model)
    batch.join(["anybody"], [settings], [seed], [prompt], …)
    batch.launch(); …; flight = batch.land()

A launch returns at once; its tokens arrive in pinned memory and are read when it lands. So the device never waits for
the host to look at a token. The host knows all lengths without looking: a living row grows by one per launch. Rows are
counted up to the next power of two, attention spans too, so that few kinds of step exist. Leaves out: texts, and when a
row has ended for another reason than its length (`engine`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from common.controller import GatingPolicy
from common.generation.cuda.graph import GraphSteps
from common.generation.cuda.state import StaticState
from common.generation.cuda.step import Kind
from common.generation.decoding_model import DecodingModel
from common.generation.prompt_scores import PromptScore
from common.generation.rows import CAPACITY_STEP, filter_of, most_candidates
from common.generation.sampling.batch import Filter
from common.generation.settings import GenerationSettings
from common.generation.window import Window
from tidal_client.vocabulary import GatingMode

LEAST_SPAN = 32
LEAST_CANDIDATES = 64
SHRINK_FROM = 4
"""An empty batch with so many times the places that are wanted is made anew: a step counts n-grams over all places."""
JOIN_AT_ONCE = 64
"""Prompts that are prefilled through one scratch cache."""


@dataclass
class Row:
    """What the host knows of a row. `read` model inputs (prompt and drawn tokens), `cached` of them in the window,
    `shift` 1 where the first input is no token of the sequence, `left` tokens not launched yet."""

    owner: Hashable
    settings: GenerationSettings
    read: int
    cached: int
    shift: int
    left: int


@dataclass
class Flight:
    """One launched step: its rows' owners (None: nobody's, or dead), and what comes back, by row.

    `numbers` (n, 9) as in `StaticState.out`; `likeliest` ids and log-probabilities where they were asked for; `dropped`
    how many inputs a row has lost in all when this launch dropped some.
    """

    owners: list[Hashable | None]
    numbers: Tensor
    likeliest: tuple[Tensor, Tensor] | None
    dropped: dict[Hashable, int]
    event: torch.cuda.Event | None

    def wait(self) -> None:
        """Until the device has done it."""
        if self.event is not None:
            self.event.synchronize()


class StaticBatch:
    """`slots` rows are made room for at once; more are added by doubling, which forgets all captured steps."""

    def __init__(
        self,
        model: DecodingModel,
        *,
        slots: int = 1,
        places: int = CAPACITY_STEP,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.steps = GraphSteps(model, graphs=graphs, compiled=compiled)
        self.flights: deque[Flight] = deque()
        self._state = StaticState(model, _power(slots), -(-places // CAPACITY_STEP) * CAPACITY_STEP)
        self._rows: dict[int, Row] = {}
        self._numbers: dict[Hashable, int] = {}
        self._policies: dict[GatingPolicy, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Memory of the state."""
        return self._state.nbytes

    @property
    def launchable(self) -> bool:
        """Whether a row has tokens left to draw."""
        return any(row.left > 0 for row in self._rows.values())

    def want_offsets(self) -> None:
        """Make room for logit bias, presence and frequency penalty; `join` does so when they are first asked for."""
        self._state.want_offsets()

    @torch.inference_mode()
    def join(
        self,
        owners: Sequence[Hashable],
        settings: Sequence[GenerationSettings],
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        inputs: Sequence[Sequence[int]],
    ) -> list[tuple[int, list[PromptScore] | None]]:
        """Prefill `inputs` (the prompt, or what starts a document where it is empty) and take them in.

        Returns for each how many inputs do not fit into the window, and its scores where the settings ask for them.
        """
        self._reserve(
            len(self._rows) + len(owners),
            max(len(prompt) + row_settings.max_tokens for prompt, row_settings in zip(prompts, settings, strict=True)),
        )
        if any(_has_offsets(row_settings) for row_settings in settings):
            self.want_offsets()
        free = [row for row in range(self._state.rows) if row not in self._rows][: len(owners)]
        for row_settings in settings:
            if row_settings.gating_mode is GatingMode.LEARNED:
                assert row_settings.policy is not None
                free_number = next(number for number in count() if number not in self._policies.values())
                self._policies.setdefault(row_settings.policy, free_number)
        learned = [
            row_settings.policy if row_settings.gating_mode is GatingMode.LEARNED else None for row_settings in settings
        ]
        numbers = [-1 if policy is None else self._policies[policy] for policy in learned]
        self._state.put(free, prompts, settings, seeds, numbers)
        joined: list[tuple[int, list[PromptScore] | None]] = []
        for first in range(0, len(owners), JOIN_AT_ONCE):
            part = slice(first, first + JOIN_AT_ONCE)
            joined += self._prefill(free[part], inputs[part], settings[part])
        for number, row in enumerate(free):
            truncated, read = joined[number][0], len(inputs[number])
            shift, left = read - len(prompts[number]), settings[number].max_tokens
            self._rows[row] = Row(owners[number], settings[number], read, read - truncated, shift, left)
            self._numbers[owners[number]] = row
        return joined

    @torch.inference_mode()
    def launch(self) -> None:
        """One step of all rows that have tokens left."""
        dropped = self._drop_oldest()
        living = {number: row for number, row in self._rows.items() if row.left > 0}
        kind = self._kind(living)
        self.steps.run(self._state, kind)
        owners: list[Hashable | None] = [None] * kind.rows
        for number, row in living.items():
            owners[number] = row.owner
            row.cached += 1
            row.read += 1
            row.left -= 1
        n, state = kind.rows, self._state
        likeliest = None
        if kind.alternatives:
            likeliest = _to_host(state.top_ids[:n]), _to_host(state.top_log_probs[:n])
        numbers, event = _to_host(state.out[:n]), None
        if state.device.type == "cuda":
            make_event: Any = torch.cuda.Event
            event = make_event()
            event.record(torch.cuda.current_stream(state.device))
        self.flights.append(Flight(owners, numbers, likeliest, dropped, event))

    def land(self) -> Flight:
        """The oldest launch, once the device has done it."""
        flight = self.flights.popleft()
        flight.wait()
        return flight

    @torch.inference_mode()
    def leave(self, owners: Sequence[Hashable]) -> None:
        """These rows are free; what is in flight for them is nobody's business any more."""
        gone = [self._numbers.pop(owner) for owner in owners]
        if not gone:
            return
        dead = [number for number in gone if self._rows.pop(number).left > 0]
        used = {row.settings.policy for row in self._rows.values()}
        self._policies = {policy: number for policy, number in self._policies.items() if policy in used}
        if dead:
            self._state.remaining[self._state.send(dead)] = 0
        if self._rows and _power(max(self._rows) + 1) > _power(len(self._rows)):
            self._move_down()

    def _move_down(self) -> None:
        n = len(self._rows)
        sources = sorted(number for number in self._rows if number >= n)
        targets = [number for number in range(n) if number not in self._rows]
        self._state.move(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            row = self._rows[target] = self._rows.pop(source)
            self._numbers[row.owner] = target

    def _reserve(self, rows: int, places: int) -> None:
        state = self._state
        places = -(-places // CAPACITY_STEP) * CAPACITY_STEP
        if not self._rows and state.places > SHRINK_FROM * places:
            self._state = StaticState(self.model, max(state.rows, _power(rows)), places)
            self.steps.forget()
        elif rows > state.rows or places > state.places:
            places = max(state.places, places)
            self._state = state.grow(self.model, max(state.rows, _power(rows)), places)
            self.steps.forget()

    def _prefill(
        self, rows: Sequence[int], inputs: Sequence[Sequence[int]], settings: Sequence[GenerationSettings]
    ) -> list[tuple[int, list[PromptScore] | None]]:
        window = Window(self.model)
        scores = window.join(
            inputs, [row_settings.top_log_probs if row_settings.score_prompt else None for row_settings in settings]
        )
        lengths = [len(tokens) - truncated for tokens, truncated in zip(inputs, window.truncated, strict=True)]
        at = self._state.fill(rows, window.cache, lengths)
        self._state.logits[at] = window.logits
        self._state.hidden[at] = window.hidden
        return list(zip(window.truncated, scores, strict=True))

    def _drop_oldest(self) -> dict[Hashable, int]:
        """Rows whose window is full lose its oldest half, and the rest is prefilled again."""
        context, state = self._state.context, self._state
        full = [number for number, row in self._rows.items() if row.left > 0 and row.cached == context]
        kept = context - context // 2
        places = torch.arange(kept, device=state.device)
        for first in range(0, len(full), JOIN_AT_ONCE):
            part = full[first : first + JOIN_AT_ONCE]
            # Behind the half that is dropped there is nothing but tokens of the sequence.
            starts = [self._rows[number].read - kept - self._rows[number].shift for number in part]
            tokens = state.history.tokens[state.send(part)]
            ids = tokens.gather(1, state.send(starts)[:, None] + places)
            cache = self.model.new_cache(len(part))
            self.model.fill(ids, [kept] * len(part), cache, 0)
            state.fill(part, cache, [kept] * len(part))
        for number in full:
            self._rows[number].cached = kept
        return {self._rows[number].owner: self._rows[number].read - kept for number in full}

    def _kind(self, living: dict[int, Row]) -> Kind:
        settings = [row.settings for row in living.values()]
        filters = {filter_of(row_settings) for row_settings in settings}
        with_top_k = [
            most_candidates(row_settings) for row_settings in settings if filter_of(row_settings) is Filter.TOP_K
        ]
        V, longest = self.model.config.vocab_size, max(row.cached for row in living.values())
        policies: dict[GatingPolicy, bool] = {}
        for row_settings in settings:
            if row_settings.gating_mode is GatingMode.LEARNED and row_settings.policy is not None:
                policies[row_settings.policy] = policies.get(row_settings.policy, False) or row_settings.sample_actions
        return Kind(
            rows=_power(max(living) + 1),
            span=min(max(_power(longest + 1), LEAST_SPAN), self._state.context),
            most=min(max(_power(max(with_top_k)), LEAST_CANDIDATES), V) if with_top_k else 1,
            alternatives=any(row_settings.top_log_probs for row_settings in settings),
            whole=Filter.NOTHING in filters,
            nucleus=Filter.TOP_P in filters,
            offsets=any(_has_offsets(row_settings) for row_settings in settings),
            random=any(row_settings.gating_mode is GatingMode.RANDOM for row_settings in settings),
            fed=self.model.gates_trained
            and any(row_settings.gating_mode is not GatingMode.NONE for row_settings in settings),
            policies=tuple(
                sorted(((self._policies[policy], policy, drawn) for policy, drawn in policies.items()), key=_number)
            ),
        )


def _has_offsets(settings: GenerationSettings) -> bool:
    return bool(settings.presence_penalty or settings.frequency_penalty or settings.logit_bias)


def _number(policy: tuple[int, GatingPolicy, bool]) -> int:
    return policy[0]


def _power(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def _to_host(tensor: Tensor) -> Tensor:
    """A copy that is there when what was launched before is done."""
    if tensor.device.type != "cuda":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
