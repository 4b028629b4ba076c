"""The device side of continuous batching: slots of a `StaticState`, and steps that are launched ahead of the host.

    batch = StaticBatch(model)
    batch.join(["owner"], [settings], [seed], [prompt], …)
    batch.launch(); …; step = batch.collect_oldest()

A launch returns at once. The sampled tokens are copied to pinned memory and read when the step is collected, so the
device never waits for the host to process a token. The host knows all lengths without reading from the device, because
an active slot grows by one token per launch. The number of slots and the attention span are rounded up to powers of
two, so that few step shapes exist. `engine` assembles texts and removes sequences that end for another reason than
their length.
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
from common.generation.cuda.step import StepShape
from common.generation.decoding_model import DecodingModel
from common.generation.prompt_scores import PromptScore
from common.generation.sampling.batch import CandidateFilter
from common.generation.settings import GenerationSettings
from common.generation.slot_states import CAPACITY_STEP, candidate_filter, max_top_k
from common.generation.window import Window
from tidal_client.vocabulary import GatingMode

MIN_SPAN = 32
MIN_CANDIDATES = 64
SHRINK_FROM = 4
"""If the capacity of an empty batch exceeds the needed capacity by more than this factor, a smaller batch is allocated.
This makes steps faster, because a step counts n-grams over the whole capacity."""
JOIN_AT_ONCE = 64
"""Largest number of prompts that are prefilled together, through one temporary cache."""


@dataclass
class SequenceSlot:
    """The host's record of one slot and its sequence."""

    owner: Hashable
    settings: GenerationSettings
    tokens_read: int
    """Number of prompt tokens and sampled tokens that the model has read after all steps launched so far."""
    tokens_cached: int
    """Number of the tokens counted in `tokens_read` that are in the cache, that is, in the context window."""
    start_tokens: int
    """1 if the model first reads an end-of-text token that replaces an empty prompt, else 0."""
    tokens_left: int
    """Number of tokens that may still be generated and for which no step has been launched yet."""


@dataclass
class InFlightStep:
    """A launched step and its results for each slot."""

    owners: list[Hashable | None]
    """The owner of each slot; None for a free or inactive slot."""
    numbers: Tensor
    """A copy of `StaticState.outputs` (n, 9)."""
    most_likely: tuple[Tensor, Tensor] | None
    """Ids and log-probabilities of the most likely tokens, if they were requested."""
    dropped: dict[Hashable, int]
    """{owner: number of tokens that its context window has dropped so far}, only for the sequences whose full context
    window dropped tokens right before this launch."""
    event: torch.cuda.Event | None

    def wait(self) -> None:
        """Wait until the device has finished the step."""
        if self.event is not None:
            self.event.synchronize()


class StaticBatch:
    """A running batch on one device.

    Memory for `slots` sequences of `capacity` tokens is allocated at construction. When more is needed, it is doubled,
    which discards all captured steps.
    """

    def __init__(
        self,
        model: DecodingModel,
        *,
        slots: int = 1,
        capacity: int = CAPACITY_STEP,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.steps = GraphSteps(model, graphs=graphs, compiled=compiled)
        self.in_flight: deque[InFlightStep] = deque()
        self._state = StaticState(model, _next_power_of_two(slots), -(-capacity // CAPACITY_STEP) * CAPACITY_STEP)
        self._slots: dict[int, SequenceSlot] = {}
        self._slot_by_owner: dict[Hashable, int] = {}
        self._policies: dict[GatingPolicy, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Return the memory of the state in bytes."""
        return self._state.nbytes

    @property
    def can_launch(self) -> bool:
        """Whether any slot may still generate tokens for which no step has been launched yet."""
        return any(slot.tokens_left > 0 for slot in self._slots.values())

    def allocate_logit_adjustments(self) -> None:
        """Allocate memory for logit bias and presence and frequency penalties; `join` calls this when needed."""
        self._state.allocate_logit_adjustments()

    @torch.inference_mode()
    def join(
        self,
        owners: Sequence[Hashable],
        settings: Sequence[GenerationSettings],
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        inputs: Sequence[Sequence[int]],
    ) -> list[tuple[int, list[PromptScore] | None]]:
        """Prefill `inputs` and add the sequences to the batch.

        The input of a sequence is its prompt, or an end-of-text token if the prompt is empty. Returns for each sequence
        the number of input tokens that do not fit into the context window, and its prompt scores or None.
        """
        self._reserve(
            len(self._slots) + len(owners),
            max(
                len(prompt) + slot_settings.max_tokens for prompt, slot_settings in zip(prompts, settings, strict=True)
            ),
        )
        if any(_has_logit_adjustments(slot_settings) for slot_settings in settings):
            self.allocate_logit_adjustments()
        free = [slot for slot in range(self._state.slots) if slot not in self._slots][: len(owners)]
        for slot_settings in settings:
            if slot_settings.gating_mode is GatingMode.LEARNED:
                assert slot_settings.policy is not None
                free_number = next(number for number in count() if number not in self._policies.values())
                self._policies.setdefault(slot_settings.policy, free_number)
        learned = [
            slot_settings.policy if slot_settings.gating_mode is GatingMode.LEARNED else None
            for slot_settings in settings
        ]
        numbers = [-1 if policy is None else self._policies[policy] for policy in learned]
        self._state.start_sequences(free, prompts, settings, seeds, numbers)
        prefilled: list[tuple[int, list[PromptScore] | None]] = []
        for first in range(0, len(owners), JOIN_AT_ONCE):
            part = slice(first, first + JOIN_AT_ONCE)
            prefilled += self._prefill(free[part], inputs[part], settings[part])
        for number, slot in enumerate(free):
            truncated, read = prefilled[number][0], len(inputs[number])

            self._slots[slot] = SequenceSlot(
                owner=owners[number],
                settings=settings[number],
                tokens_read=read,
                tokens_cached=read - truncated,
                start_tokens=read - len(prompts[number]),
                tokens_left=settings[number].max_tokens,
            )
            self._slot_by_owner[owners[number]] = slot
        return prefilled

    @torch.inference_mode()
    def launch(self) -> None:
        """Launch one step of all slots that have tokens left."""
        dropped = self._drop_oldest()
        active = {number: slot for number, slot in self._slots.items() if slot.tokens_left > 0}
        shape = self._step_shape(active)
        self.steps.run(self._state, shape)
        owners: list[Hashable | None] = [None] * shape.slots
        for number, slot in active.items():
            owners[number] = slot.owner
            slot.tokens_cached += 1
            slot.tokens_read += 1
            slot.tokens_left -= 1
        n, state = shape.slots, self._state
        most_likely = None
        if shape.top_log_probs:
            most_likely = _to_host(state.top_ids[:n]), _to_host(state.top_log_probs[:n])
        numbers, event = _to_host(state.outputs[:n]), None
        if state.device.type == "cuda":
            make_event: Any = torch.cuda.Event
            event = make_event()
            event.record(torch.cuda.current_stream(state.device))
        self.in_flight.append(InFlightStep(owners, numbers, most_likely, dropped, event))

    def collect_oldest(self) -> InFlightStep:
        """Wait for the oldest in-flight step and return it."""
        step = self.in_flight.popleft()
        step.wait()
        return step

    @torch.inference_mode()
    def remove(self, owners: Sequence[Hashable]) -> None:
        """Free the slots of these owners. Tokens that in-flight steps sample for these owners are ignored."""
        removed = [self._slot_by_owner.pop(owner) for owner in owners]
        if not removed:
            return
        to_deactivate = [number for number in removed if self._slots.pop(number).tokens_left > 0]
        used = {slot.settings.policy for slot in self._slots.values()}
        self._policies = {policy: number for policy, number in self._policies.items() if policy in used}
        if to_deactivate:
            self._state.tokens_remaining.index_fill_(0, self._state.send(to_deactivate), 0)
        if self._slots and _next_power_of_two(max(self._slots) + 1) > _next_power_of_two(len(self._slots)):
            self._compact()

    def _compact(self) -> None:
        n = len(self._slots)
        sources = sorted(number for number in self._slots if number >= n)
        targets = [number for number in range(n) if number not in self._slots]
        self._state.move(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            slot = self._slots[target] = self._slots.pop(source)
            self._slot_by_owner[slot.owner] = target

    def _reserve(self, slots: int, capacity: int) -> None:
        state = self._state
        capacity = -(-capacity // CAPACITY_STEP) * CAPACITY_STEP
        if not self._slots and state.capacity > SHRINK_FROM * capacity:
            self._state = StaticState(self.model, max(state.slots, _next_power_of_two(slots)), capacity)
            self.steps.discard_captures()
        elif slots > state.slots or capacity > state.capacity:
            capacity = max(state.capacity, capacity)
            self._state = state.grow(self.model, max(state.slots, _next_power_of_two(slots)), capacity)
            self.steps.discard_captures()

    def _prefill(
        self, slots: Sequence[int], inputs: Sequence[Sequence[int]], settings: Sequence[GenerationSettings]
    ) -> list[tuple[int, list[PromptScore] | None]]:
        window = Window(self.model)
        scores = window.join(
            inputs, [slot_settings.top_log_probs if slot_settings.score_prompt else None for slot_settings in settings]
        )
        lengths = [len(tokens) - truncated for tokens, truncated in zip(inputs, window.truncated, strict=True)]
        at = self._state.copy_cache(slots, window.cache, lengths)
        self._state.logits[at] = window.logits
        self._state.hidden[at] = window.hidden
        return list(zip(window.truncated, scores, strict=True))

    def _drop_oldest(self) -> dict[Hashable, int]:
        """Drop the oldest half of each full context window and prefill the rest.

        Returns {owner: number of tokens dropped so far} for the sequences whose window was full.
        """
        context, state = self._state.context, self._state
        full = [
            number for number, slot in self._slots.items() if slot.tokens_left > 0 and slot.tokens_cached == context
        ]
        kept = context - context // 2
        positions = torch.arange(kept, device=state.device)
        for first in range(0, len(full), JOIN_AT_ONCE):
            part = full[first : first + JOIN_AT_ONCE]
            # The history lacks an end-of-text token that replaced an empty prompt. This token was the first input, so
            # it is in the dropped half, and the history has all inputs of the other half.
            starts = [self._slots[number].tokens_read - kept - self._slots[number].start_tokens for number in part]
            tokens = state.history.tokens[state.send(part)]
            ids = tokens.gather(1, state.send(starts)[:, None] + positions)
            cache = self.model.new_cache(len(part))
            self.model.prefill_states(ids, [kept] * len(part), cache, 0)
            state.copy_cache(part, cache, [kept] * len(part))
        for number in full:
            self._slots[number].tokens_cached = kept
        return {self._slots[number].owner: self._slots[number].tokens_read - kept for number in full}

    def _step_shape(self, active: dict[int, SequenceSlot]) -> StepShape:
        settings = [slot.settings for slot in active.values()]
        filters = {candidate_filter(slot_settings) for slot_settings in settings}
        with_top_k = [
            max_top_k(slot_settings)
            for slot_settings in settings
            if candidate_filter(slot_settings) is CandidateFilter.TOP_K
        ]
        V, longest = self.model.config.vocab_size, max(slot.tokens_cached for slot in active.values())
        policies: dict[GatingPolicy, bool] = {}
        for slot_settings in settings:
            if slot_settings.gating_mode is GatingMode.LEARNED and slot_settings.policy is not None:
                policies[slot_settings.policy] = (
                    policies.get(slot_settings.policy, False) or slot_settings.sample_actions
                )
        return StepShape(
            slots=_next_power_of_two(max(active) + 1),
            span=min(max(_next_power_of_two(longest + 1), MIN_SPAN), self._state.context),
            max_candidates=min(max(_next_power_of_two(max(with_top_k)), MIN_CANDIDATES), V) if with_top_k else 1,
            top_log_probs=any(slot_settings.top_log_probs for slot_settings in settings),
            full_distribution=CandidateFilter.FULL_DISTRIBUTION in filters,
            top_p_only=CandidateFilter.TOP_P in filters,
            logit_adjustments=any(_has_logit_adjustments(slot_settings) for slot_settings in settings),
            random_modulation=any(slot_settings.gating_mode is GatingMode.RANDOM for slot_settings in settings),
            gated=self.model.gates_trained
            and any(slot_settings.gating_mode is not GatingMode.NONE for slot_settings in settings),
            policies=tuple(
                sorted(
                    ((self._policies[policy], policy, sample) for policy, sample in policies.items()),
                    key=_policy_number,
                )
            ),
        )


def _has_logit_adjustments(settings: GenerationSettings) -> bool:
    return bool(settings.presence_penalty or settings.frequency_penalty or settings.logit_bias)


def _policy_number(policy: tuple[int, GatingPolicy, bool]) -> int:
    return policy[0]


def _next_power_of_two(count: int) -> int:
    """Return the least power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def _to_host(tensor: Tensor) -> Tensor:
    """Return a host copy, which is complete once the device has finished everything launched so far."""
    if tensor.device.type != "cuda":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
