"""What every row of a running batch is decoded with, as tensors: parameters, seed, modulation and history.

Each decoding parameter of a row is low + m · span: in mode `none` the span is 0, so one formula serves all modes. They
change only when rows join or leave, except where chance or a policy picks the modulation. Rows 0..n−1 are in use; a
row that leaves is replaced by the last one. Leaves out: the model (`window`), texts and results (`continuation`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.controller import DecodingParameterRows, GatingPolicy, PackedActor, TokenHistory, build_observations
from common.generation.sampling.batch import Filter, Known
from common.generation.sampling.noise import row_noise
from common.generation.settings import GenerationSettings
from tidal_client.vocabulary import GatingMode

SPANS = 4
"""temperature, top-k, top-p, repetition penalty: the order of the columns."""
MODULATION = 2 * SPANS
EPISODE = MODULATION + 1
COLUMNS = EPISODE + 1
CAPACITY_STEP = 512
"""The history grows by so many places at least."""
DISTINCT_FROM = 512
"""Of a longer prompt only the distinct tokens are kept, which is all that the penalty asks for."""
LONG = 2048
"""Rows with more tokens are penalised, and counted, one by one: together each row costs what the longest one does."""
_NOISE_STEPS = 32
"""Noise is made for so many steps ahead, unless rows join or leave."""


class Plan(NamedTuple):
    """How the next token of n rows is picked: modulation (n,), 0 where there is none, and the four parameters."""

    modulation: Tensor
    parameters: DecodingParameterRows
    uniform: Tensor


class Rows:
    """`settings` of the rows in use, in order, and what is `known` of those planned for."""

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
        """What the penalty falls on (n, S), negative beyond the ends. Of the rows in `long` it is the beginning."""
        return self._history.tokens[: len(self), : max(_short(self._lengths), default=0)]

    @property
    def long(self) -> list[tuple[int, Tensor]]:
        """Rows with more than `LONG` tokens, and these (1, their number)."""
        return [
            (row, self._history.tokens[row : row + 1, :length])
            for row, length in enumerate(self._lengths)
            if length > LONG
        ]

    @property
    def fed(self) -> Tensor:
        """(n,) bool: rows with a modulation."""
        self._settle()
        return self._fed

    def join(self, prompt: list[int], settings: GenerationSettings, seed: int, *, like: int | None = None) -> None:
        """One more row. Row `like`, whose prompt and gating mode are the same, has drawn nothing yet."""
        row, counted = len(self), settings.gating_mode is GatingMode.LEARNED
        if like is None:
            kept = prompt if counted or len(prompt) <= DISTINCT_FROM else list(dict.fromkeys(prompt))
            self._lengths.append(len(kept))
            self._reserve(row + 1, len(kept) + settings.max_tokens)
            self._history.put(row, kept, counted=counted)
        else:
            self._lengths.append(self._lengths[like])
            self._reserve(row + 1, self._lengths[like] + settings.max_tokens)
            self._history.move(like, row)
        self.settings.append(settings)
        values = torch.tensor(columns_of(settings, self._history.vocab_size), dtype=torch.float64)
        self._table[row] = values.to(self._table.device)
        self._seeds[row] = seed
        self._steps[row] = 0
        self._previous[row] = 0.0
        self._changed = True

    def remove(self, row: int) -> None:
        """The row leaves, the last one takes its place."""
        last = len(self) - 1
        self.settings[row] = self.settings[last]
        self._lengths[row] = self._lengths[last]
        del self.settings[last], self._lengths[last]
        if row != last:
            self._history.move(last, row)
            for tensor in (self._table, self._seeds, self._steps, self._previous):
                tensor[row] = tensor[last]
        self._changed = True

    def plan(self, logits: Tensor, hidden: Tensor) -> Plan:
        """Modulations and parameters for the next token; logits (n, V) raw and hidden (n, D) at the last position."""
        n = len(self)
        self._settle()
        for_modulation, for_token = self._next_noise(n)
        if self._static is not None:
            return Plan(self._static[0], self._static[1], for_token)
        if self._only_actor is not None:
            actor, drawn = self._only_actor
            modulation = actor.act_rows(self._observations(logits, hidden), for_modulation, drawn)[:, 0]
            return Plan(modulation, self._parameters(modulation), for_token)
        exact = self._table[:n, MODULATION]
        modulation = exact.float()
        if self._random:
            modulation[self._random] = for_modulation[self._random]
        if self._learned:
            observations = self._observations(logits, hidden)
            for actor, rows, drawn in self._learned:
                modulation[rows] = actor.act_rows(observations[rows], for_modulation[rows], drawn)[:, 0]
        # A constant m has exactly the parameters that are told for it, whoever else is in the batch.
        exact = torch.where(self._constant, exact, modulation.double())
        return Plan(modulation, self._parameters(exact), for_token)

    def append(self, tokens: Tensor, modulation: Tensor) -> None:
        """Each row has drawn its token (n,) with modulation (n,)."""
        n = len(self)
        long = [row for row, length in enumerate(self._lengths) if length >= LONG]
        self._lengths = [length + 1 for length in self._lengths]
        # Only policies look at the counts; a row keeps its policy from its first token on.
        if not self._learned:
            self._history.prefix(n, max(self._lengths)).append_uncounted(tokens)
        elif not long:
            self._history.prefix(n, max(self._lengths)).append(tokens)
        else:
            short = torch.ones(n, dtype=torch.bool)
            short[long] = False
            span = max(_short(self._lengths), default=1)
            self._history.prefix(n, span).append(tokens, short.to(tokens.device))
            for row in long:
                self._history.one(row, self._lengths[row]).append(tokens[row : row + 1])
        self._steps[:n] += 1
        self._previous[:n] = modulation

    def _next_noise(self, n: int) -> Tensor:
        """(STREAMS, n) for the present step of each row, made for many steps at once."""
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
        # float64, so that top-k rounds as it does for one number.
        table = self._table[: len(modulation)]
        values = table[:, :SPANS] + modulation.double()[:, None] * table[:, SPANS:MODULATION]
        temperature, _, top_p, penalty = values.float().unbind(1)
        return DecodingParameterRows(temperature, values[:, 1].round().long(), top_p, penalty)

    def _reserve(self, rows: int, capacity: int) -> None:
        held = len(self._table)
        if rows > held or capacity > self._history.capacity:
            room = max(rows, 2 * held) if rows > held else held
            places = max(self._history.capacity, -(-capacity // CAPACITY_STEP) * CAPACITY_STEP)
            self._history = self._history.grow(room, places)
            self._table, self._seeds, self._steps, self._previous = (
                torch.cat((tensor, tensor.new_zeros((room - held, *tensor.shape[1:]))))
                for tensor in (self._table, self._seeds, self._steps, self._previous)
            )

    def _settle(self) -> None:
        """Where the rows have changed, work out what stays the same until they change again."""
        if not self._changed:
            return
        self._changed = False
        self._noise, self._noise_used = [], 0
        self.known = Known(
            [filter_of(settings) for settings in self.settings],
            most=max((most_candidates(settings) for settings in self.settings), default=1),
            alternatives=max((settings.top_log_probs for settings in self.settings), default=0),
            even=len(set(_short(self._lengths))) <= 1,
            nucleus=any(_least_top_p(settings) < 1.0 for settings in self.settings),
        )
        modes = [settings.gating_mode for settings in self.settings]
        device = self._table.device
        self._fed = torch.tensor([mode is not GatingMode.NONE for mode in modes], dtype=torch.bool, device=device)
        constant = [mode in (GatingMode.NONE, GatingMode.FIXED) for mode in modes]
        self._constant = torch.tensor(constant, dtype=torch.bool, device=device)
        self._random = [row for row, mode in enumerate(modes) if mode is GatingMode.RANDOM]
        by_policy: dict[GatingPolicy, list[int]] = {}
        for row, settings in enumerate(self.settings):
            if modes[row] is GatingMode.LEARNED:
                assert settings.policy is not None
                by_policy.setdefault(settings.policy, []).append(row)
        self._learned: list[tuple[PackedActor, list[int], Tensor | None]] = []
        for policy, rows in by_policy.items():
            drawn = [self.settings[row].sample_actions for row in rows]
            self._learned.append(
                (PackedActor(policy), rows, torch.tensor(drawn, device=device) if any(drawn) else None)
            )
        self._only_actor: tuple[PackedActor, Tensor | None] | None = None
        if len(self._learned) == 1 and len(self._learned[0][1]) == len(self):
            actor, _, its_drawn = self._learned[0]
            self._only_actor = actor, its_drawn
        self._static: tuple[Tensor, DecodingParameterRows] | None = None
        if not self._random and not self._learned:
            modulation = self._table[: len(self), MODULATION].float()
            self._static = modulation, self._parameters(self._table[: len(self), MODULATION])


def _short(lengths: list[int]) -> list[int]:
    return [length for length in lengths if length <= LONG]


def most_candidates(settings: GenerationSettings) -> int:
    """The largest top-k that a row with these settings may have; 1 without one."""
    if settings.gating_mode is GatingMode.NONE:
        return settings.plain.top_k or 1
    return max(round(settings.map.top_k.high), 1)


def _least_top_p(settings: GenerationSettings) -> float:
    return settings.top_p if settings.gating_mode is GatingMode.NONE else settings.map.top_p.low


def filter_of(settings: GenerationSettings) -> Filter:
    """What decides the candidates of a row with these settings."""
    if settings.gating_mode is not GatingMode.NONE or settings.plain.top_k is not None:
        return Filter.TOP_K
    return Filter.NOTHING if settings.top_p >= 1.0 else Filter.TOP_P


def columns_of(settings: GenerationSettings, vocab_size: int) -> list[float]:
    """One row of the table: four lows, four spans, modulation, episode length."""
    episode = float(settings.episode_length or settings.max_tokens)
    if settings.gating_mode is GatingMode.NONE:
        plain = settings.plain
        top_k = vocab_size if plain.top_k is None else plain.top_k
        columns = [plain.temperature, float(top_k), plain.top_p, plain.repetition_penalty]
        return [*columns, 0.0, 0.0, 0.0, 0.0, 0.0, episode]
    ranges = settings.map
    bases = [ranges.base_temperature, 1.0, 1.0, ranges.base_repetition_penalty]
    spans = [ranges.temperature, ranges.top_k, ranges.top_p, ranges.repetition_penalty]
    lows = [base * span.low for base, span in zip(bases, spans, strict=True)]
    widths = [base * (span.high - span.low) for base, span in zip(bases, spans, strict=True)]
    modulation = settings.modulation if settings.gating_mode is GatingMode.FIXED else 0.0
    return [*lows, *widths, modulation, episode]
