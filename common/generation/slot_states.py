"""The sampling state of every slot of a running batch, as tensors: parameters, seed, modulation and token history.

Each decoding parameter of a slot is low + m · span. In mode `none` the span is 0, so that one formula is valid for all
modes. In the modes `random` and `learned`, the parameters change with each token. In the other modes they change only
when sequences join or are removed. Slots 0..n−1 are in use; when a sequence is removed, the sequence in the last slot
moves to its slot. The model is run in `window`; texts and results are in `continuation`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.controller import DecodingParameterRows, GatingPolicy, PackedActor, TokenHistory, build_observations
from common.generation.sampling.batch import BatchTraits, CandidateFilter
from common.generation.sampling.noise import row_noise
from common.generation.settings import GenerationSettings
from tidal_client.vocabulary import GatingMode

SPANS = 4
"""Number of decoding parameters. Their order in the columns: temperature, top-k, top-p, repetition penalty."""
MODULATION = 2 * SPANS
"""Column of the modulation in the parameter table, after four columns of lows and four columns of spans."""
EPISODE = MODULATION + 1
"""Column of the episode length in the parameter table."""
COLUMNS = EPISODE + 1
"""Number of columns of the parameter table."""
CAPACITY_STEP = 512
"""The capacity of the token history, in tokens, is a multiple of this number."""
DISTINCT_FROM = 512
"""Number of prompt tokens above which only the distinct tokens are kept, which suffice for the repetition penalty."""
LONG_SEQUENCE = 2048
"""Number of tokens above which a sequence is processed by itself when the repetition penalty is applied and n-grams are
counted. In a tensor together with such a sequence, each shorter one would take as much time as the long one."""
_NOISE_STEPS = 32
"""Number of steps for which noise is computed in advance. The noise is computed anew when sequences join or are
removed."""


class StepPlan(NamedTuple):
    """The inputs for sampling the next token of n slots.

    modulation (n,) is 0 in mode `none`; `parameters` are the decoding parameters; uniform (n,) has random numbers in
    [0, 1).
    """

    modulation: Tensor
    parameters: DecodingParameterRows
    uniform: Tensor


class SlotStates:
    """The settings and sampling state of the slots in use.

    `settings` has one entry per slot, in the order of the slots. `traits` describes the batch for `sample_batch`; it is
    valid after `plan`.
    """

    def __init__(self, vocab_size: int, *, device: torch.device | str = "cpu") -> None:
        self.settings: list[GenerationSettings] = []
        self._lengths: list[int] = []
        self._history = TokenHistory(1, CAPACITY_STEP, vocab_size, device=device)
        self._table = torch.zeros(1, COLUMNS, dtype=torch.float64, device=device)
        self._seeds = torch.zeros(1, dtype=torch.int64, device=device)
        self._steps = torch.zeros(1, dtype=torch.int64, device=device)
        self._previous = torch.zeros(1, device=device)
        self._noise: list[Tensor] = []
        self._noise_used = 0
        self._changed = True

    def __len__(self) -> int:
        return len(self.settings)

    @property
    def tokens(self) -> Tensor:
        """The tokens (n, S) that the repetition penalty applies to, negative beyond the end of a sequence.

        For slots in `long_sequences` only the first S tokens are included.
        """
        return self._history.tokens[: len(self), : max(_without_long_sequences(self._lengths), default=0)]

    @property
    def long_sequences(self) -> list[tuple[int, Tensor]]:
        """The slots with more than `LONG_SEQUENCE` tokens, each with its tokens (1, length)."""
        return [
            (slot, self._history.tokens[slot : slot + 1, :length])
            for slot, length in enumerate(self._lengths)
            if length > LONG_SEQUENCE
        ]

    @property
    def gated(self) -> Tensor:
        """For each slot, whether it has a modulation: (n,) bool."""
        self._refresh()
        return self._gated

    def join(self, prompt: list[int], settings: GenerationSettings, seed: int, *, copy_from: int | None = None) -> None:
        """Add a slot. `copy_from` is a slot with the same prompt and gating mode that has not sampled a token yet."""
        slot, counted = len(self), settings.gating_mode is GatingMode.LEARNED
        if copy_from is None:
            kept = prompt if counted or len(prompt) <= DISTINCT_FROM else list(dict.fromkeys(prompt))
            self._lengths.append(len(kept))
            self._reserve(slot + 1, len(kept) + settings.max_tokens)
            self._history.set_sequence(slot, kept, counted=counted)
        else:
            self._lengths.append(self._lengths[copy_from])
            self._reserve(slot + 1, self._lengths[copy_from] + settings.max_tokens)
            self._history.copy(copy_from, slot)
        self.settings.append(settings)
        values = torch.tensor(parameter_columns(settings, self._history.vocab_size), dtype=torch.float64)
        self._table[slot] = values.to(self._table.device)
        self._seeds[slot] = seed
        self._steps[slot] = 0
        self._previous[slot] = 0.0
        self._changed = True

    def remove(self, slot: int) -> None:
        """Free a slot and move the sequence in the last slot into it."""
        last = len(self) - 1
        self.settings[slot] = self.settings[last]
        self._lengths[slot] = self._lengths[last]
        del self.settings[last], self._lengths[last]
        if slot != last:
            self._history.copy(last, slot)
            for tensor in (self._table, self._seeds, self._steps, self._previous):
                tensor[slot] = tensor[last]
        self._changed = True

    def plan(self, logits: Tensor, hidden: Tensor) -> StepPlan:
        """Return modulations and parameters for the next token.

        logits (n, V) are the raw logits and hidden (n, D) the final states at the last position.
        """
        n = len(self)
        self._refresh()
        for_modulation, for_token = self._next_noise(n)
        if self._constant_plan is not None:
            return StepPlan(self._constant_plan[0], self._constant_plan[1], for_token)
        if self._only_actor is not None:
            actor, sample_action = self._only_actor
            modulation = actor.act_rows(self._observations(logits, hidden), for_modulation, sample_action)[:, 0]
            return StepPlan(modulation, self._parameters(modulation), for_token)
        exact = self._table[:n, MODULATION]
        modulation = exact.float()
        if self._random:
            modulation[self._random] = for_modulation[self._random]
        if self._learned:
            observations = self._observations(logits, hidden)
            for actor, slots, sample_action in self._learned:
                modulation[slots] = actor.act_rows(observations[slots], for_modulation[slots], sample_action)[:, 0]
        # A slot with a constant modulation gets exactly the parameters that are reported for this modulation, whatever
        # else is in the batch.
        exact = torch.where(self._constant, exact, modulation.double())
        return StepPlan(modulation, self._parameters(exact), for_token)

    def append(self, tokens: Tensor, modulation: Tensor) -> None:
        """Append the sampled tokens (n,) and their modulations (n,) to the sequences of the slots."""
        n = len(self)
        long_slots = [slot for slot, length in enumerate(self._lengths) if length >= LONG_SEQUENCE]
        self._lengths = [length + 1 for length in self._lengths]
        # Only policies read the counts of tokens. A sequence without a policy never gets one later, so no counts are
        # needed if no sequence has a policy.
        if not self._learned:
            self._history.prefix(n, max(self._lengths)).append_uncounted(tokens)
        elif not long_slots:
            self._history.prefix(n, max(self._lengths)).append(tokens)
        else:
            short = torch.ones(n, dtype=torch.bool)
            short[long_slots] = False
            span = max(_without_long_sequences(self._lengths), default=1)
            self._history.prefix(n, span).append(tokens, short.to(tokens.device))
            for slot in long_slots:
                self._history.single(slot, self._lengths[slot]).append(tokens[slot : slot + 1])
        self._steps[:n] += 1
        self._previous[:n] = modulation

    def _next_noise(self, n: int) -> Tensor:
        """Return the noise (STREAMS, n) for the current step of each slot; it is computed for many steps at once."""
        if self._noise_used == len(self._noise):
            ahead = self._steps[:n] + torch.arange(_NOISE_STEPS, device=self._steps.device)[:, None]
            flat = row_noise(self._seeds[:n].expand(_NOISE_STEPS, n).reshape(-1), ahead.view(-1))
            self._noise, self._noise_used = list(flat.view(-1, _NOISE_STEPS, n).unbind(1)), 0
        self._noise_used += 1
        return self._noise[self._noise_used - 1]

    def _observations(self, logits: Tensor, hidden: Tensor) -> Tensor:
        n = len(self)
        return build_observations(
            self._history.prefix(n, max(self._lengths, default=0) or 1),
            logits,
            hidden,
            step=self._steps[:n],
            episode_length=self._table[:n, EPISODE],
            previous_action=self._previous[:n],
        )

    def _parameters(self, modulation: Tensor) -> DecodingParameterRows:
        # Compute in float64, so that top-k is rounded as in `decoding_parameters`.
        table = self._table[: len(modulation)]
        values = table[:, :SPANS] + modulation.double()[:, None] * table[:, SPANS:MODULATION]
        temperature, _, top_p, penalty = values.float().unbind(1)
        return DecodingParameterRows(temperature, values[:, 1].round().long(), top_p, penalty)

    def _reserve(self, slots: int, capacity: int) -> None:
        existing = len(self._table)
        if slots > existing or capacity > self._history.capacity:
            new_slots = max(slots, 2 * existing) if slots > existing else existing
            new_capacity = max(self._history.capacity, -(-capacity // CAPACITY_STEP) * CAPACITY_STEP)
            self._history = self._history.grow(new_slots, new_capacity)
            self._table, self._seeds, self._steps, self._previous = (
                torch.cat((tensor, tensor.new_zeros((new_slots - existing, *tensor.shape[1:]))))
                for tensor in (self._table, self._seeds, self._steps, self._previous)
            )

    def _refresh(self) -> None:
        """After a slot was added or removed, compute everything that stays constant until slots change again."""
        if not self._changed:
            return
        self._changed = False
        self._noise, self._noise_used = [], 0
        self.traits = BatchTraits(
            [candidate_filter(settings) for settings in self.settings],
            max_top_k=max((max_top_k(settings) for settings in self.settings), default=1),
            top_log_probs=max((settings.top_log_probs for settings in self.settings), default=0),
            equal_lengths=len(set(_without_long_sequences(self._lengths))) <= 1,
            any_top_p=any(_min_top_p(settings) < 1.0 for settings in self.settings),
        )
        modes = [settings.gating_mode for settings in self.settings]
        device = self._table.device
        self._gated = torch.tensor([mode is not GatingMode.NONE for mode in modes], dtype=torch.bool, device=device)
        constant = [mode in (GatingMode.NONE, GatingMode.FIXED) for mode in modes]
        self._constant = torch.tensor(constant, dtype=torch.bool, device=device)
        self._random = [slot for slot, mode in enumerate(modes) if mode is GatingMode.RANDOM]
        by_policy: dict[GatingPolicy, list[int]] = {}
        for slot, settings in enumerate(self.settings):
            if modes[slot] is GatingMode.LEARNED:
                assert settings.policy is not None
                by_policy.setdefault(settings.policy, []).append(slot)
        self._learned: list[tuple[PackedActor, list[int], Tensor | None]] = []
        for policy, slots in by_policy.items():
            sample_action = [self.settings[slot].sample_actions for slot in slots]
            self._learned.append(
                (PackedActor(policy), slots, torch.tensor(sample_action, device=device) if any(sample_action) else None)
            )
        self._only_actor: tuple[PackedActor, Tensor | None] | None = None
        if len(self._learned) == 1 and len(self._learned[0][1]) == len(self):
            self._only_actor = self._learned[0][0], self._learned[0][2]
        self._constant_plan: tuple[Tensor, DecodingParameterRows] | None = None
        if not self._random and not self._learned:
            modulation = self._table[: len(self), MODULATION].float()
            self._constant_plan = modulation, self._parameters(self._table[: len(self), MODULATION])


def _without_long_sequences(lengths: list[int]) -> list[int]:
    return [length for length in lengths if length <= LONG_SEQUENCE]


def max_top_k(settings: GenerationSettings) -> int:
    """Return the largest top-k that these settings allow, or 1 if they contain no top-k."""
    if settings.gating_mode is GatingMode.NONE:
        return settings.plain_parameters.top_k or 1
    return max(round(settings.modulation_map.top_k.high), 1)


def _min_top_p(settings: GenerationSettings) -> float:
    return settings.top_p if settings.gating_mode is GatingMode.NONE else settings.modulation_map.top_p.low


def candidate_filter(settings: GenerationSettings) -> CandidateFilter:
    """Return the filter that determines the candidates with these settings."""
    if settings.gating_mode is not GatingMode.NONE or settings.plain_parameters.top_k is not None:
        return CandidateFilter.TOP_K
    return CandidateFilter.FULL_DISTRIBUTION if settings.top_p >= 1.0 else CandidateFilter.TOP_P


def parameter_columns(settings: GenerationSettings, vocab_size: int) -> list[float]:
    """Return the row of a slot in the parameter table.

    Its columns are the values of the four decoding parameters at modulation 0, the increase of each from modulation 0
    to 1, the modulation, and the episode length.
    """
    episode = float(settings.episode_length or settings.max_tokens)
    if settings.gating_mode is GatingMode.NONE:
        plain = settings.plain_parameters
        top_k = vocab_size if plain.top_k is None else plain.top_k
        columns = [plain.temperature, float(top_k), plain.top_p, plain.repetition_penalty]
        return [*columns, 0.0, 0.0, 0.0, 0.0, 0.0, episode]
    ranges = settings.modulation_map
    bases = [ranges.base_temperature, 1.0, 1.0, ranges.base_repetition_penalty]
    spans = [ranges.temperature, ranges.top_k, ranges.top_p, ranges.repetition_penalty]
    lows = [base * span.low for base, span in zip(bases, spans, strict=True)]
    widths = [base * (span.high - span.low) for base, span in zip(bases, spans, strict=True)]
    modulation = settings.modulation if settings.gating_mode is GatingMode.FIXED else 0.0
    return [*lows, *widths, modulation, episode]
