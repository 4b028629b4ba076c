"""All that a running batch knows, in tensors of a fixed number of rows: a step over them is recorded once and replayed.

Nothing here changes its place in memory but by `grow`. A row whose `remaining` is 0 is dead: a step leaves its counts
alone, and what it writes for it is never read. Shapes: R rows, L layers, H heads, K head width, V vocabulary, D width.
Leaves out: who has which row (`batch`), and the step itself (`step`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.controller import TokenHistory
from common.generation.cpu.packed_linear import Precision
from common.generation.decoding_model import DecodingModel
from common.generation.rows import COLUMNS, MODULATION, SPANS, columns_of, filter_of
from common.generation.sampling.batch import Filter
from common.generation.sampling.noise import STREAMS, row_noise
from common.generation.settings import MAX_TOP_LOG_PROBS, GenerationSettings
from common.generation.slot_cache import SlotCache
from tidal_client.vocabulary import GatingMode

FILTERS = {Filter.TOP_K: 0, Filter.TOP_P: 1, Filter.NOTHING: 2}
NUMBERS = 9
"""Columns of `out`: the token, then `continuation.COLUMNS`."""


class StaticState:
    """Room for `rows` sequences of up to `places` tokens each, prompt included."""

    @torch.inference_mode(False)  # torch.compile takes no tensors of inference mode that a step writes to
    def __init__(self, model: DecodingModel, rows: int, places: int) -> None:
        c, device = model.config, model.device
        self.rows, self.places, self.device = rows, places, device
        self.context = c.context_length
        dtype = torch.bfloat16 if model.precision is Precision.BFLOAT16 else torch.float32
        shape = (c.num_layers, rows, c.num_heads, c.context_length, c.head_dim)

        def whole(*sizes: int) -> Tensor:
            return torch.zeros(rows, *sizes, dtype=torch.int64, device=device)

        def yes_or_no(*sizes: int) -> Tensor:
            return torch.zeros(rows, *sizes, dtype=torch.bool, device=device)

        def number(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(rows, *sizes, dtype=dtype, device=device)

        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.cached = whole()
        """Positions in the cache."""
        self.remaining = whole()
        """Tokens that may still be drawn."""
        self.history = TokenHistory(rows, places, c.vocab_size, device=device)
        self.table = number(COLUMNS, dtype=torch.float64)
        self.table[:, :SPANS] = 1.0  # rows that were never used divide by a temperature as well
        self.constant = number(SPANS) + 1.0
        """The four parameters where neither chance nor a policy has a say."""
        self.noise = torch.zeros(STREAMS, rows, places + 1, device=device)
        """`row_noise` of every step, drawn when a row joins: thirty small operations less in each step."""
        self.steps, self.filters, self.policy = whole(), whole(), whole()
        self.random, self.fed, self.sampled = yes_or_no(), yes_or_no(), yes_or_no()
        self.previous = number()
        self.logits = number(c.vocab_size)
        self.hidden = number(c.d_model)
        assert c.vocab_size <= 2**24, "a token is told as a float32"
        self.out = number(NUMBERS)
        self.top_ids = whole(min(MAX_TOP_LOG_PROBS, c.vocab_size))
        self.top_log_probs = number(min(MAX_TOP_LOG_PROBS, c.vocab_size))
        # Rows (R, V) of what is added to logits, see `logit_adjustments`; made when first asked for.
        self.sums: Tensor | None = None
        self.drawn: Tensor | None = None
        self.penalties = number(2)
        self.row_numbers = torch.arange(rows, device=device)
        self.positions = torch.arange(c.context_length, device=device)
        turns = model.parts.turns
        self.cos, self.sin = turns.real.contiguous(), turns.imag.contiguous()

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return (
            sum(tensor.nbytes for tensor in self._by_row()) + self.keys.nbytes + self.values.nbytes + self.noise.nbytes
        )

    @torch.inference_mode(False)
    def want_offsets(self) -> None:
        """Make room for logit bias, presence and frequency penalty."""
        if self.sums is None:
            self.sums = torch.zeros_like(self.logits)
            self.drawn = torch.zeros_like(self.logits, dtype=torch.bool)

    def put(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        settings: Sequence[GenerationSettings],
        seeds: Sequence[int],
        policies: Sequence[int],
    ) -> None:
        """Start these rows over; `fill` follows. `policies` are their numbers in the step."""
        at = self.send(rows)
        made = TokenHistory.of(prompts, vocab_size=self.history.vocab_size, device=self.device)
        self.history.tokens[at] = made.tokens.new_full((len(rows), self.places), -1)
        self.history.tokens[at, : made.capacity] = made.tokens
        for mine, new in zip(_counts(self.history), _counts(made), strict=True):
            mine[at] = new
        columns = [columns_of(row_settings, self.history.vocab_size) for row_settings in settings]
        table = self.send(columns, torch.float64)
        parameters = table[:, :SPANS] + table[:, MODULATION, None] * table[:, SPANS:MODULATION]
        parameters[:, 1].round_()
        self.table[at], self.constant[at] = table, parameters.float()
        drawn = self.send(seeds).repeat_interleave(self.places + 1)
        counted = torch.arange(self.places + 1, device=self.device).repeat(len(rows))
        self.noise[:, at] = row_noise(drawn, counted).view(STREAMS, len(rows), -1)
        self.policy[at] = self.send(policies)
        self.filters[at] = self.send([FILTERS[filter_of(row_settings)] for row_settings in settings])
        modes = [row_settings.gating_mode for row_settings in settings]
        self.random[at] = self.send([mode is GatingMode.RANDOM for mode in modes], torch.bool)
        self.fed[at] = self.send([mode is not GatingMode.NONE for mode in modes], torch.bool)
        self.sampled[at] = self.send([row_settings.sample_actions for row_settings in settings], torch.bool)
        self.remaining[at] = self.send([row_settings.max_tokens for row_settings in settings])
        self.steps[at] = 0
        self.previous[at] = 0.0
        if self.sums is not None and self.drawn is not None:
            self.sums[at] = 0.0
            self.drawn[at] = False
            penalties = [[row_settings.presence_penalty, row_settings.frequency_penalty] for row_settings in settings]
            self.penalties[at] = self.send(penalties, torch.float32)
            bias = [
                (row, *pair)
                for row, row_settings in zip(rows, settings, strict=True)
                for pair in row_settings.logit_bias
            ]
            if bias:
                owners, tokens, values = zip(*bias, strict=True)
                self.sums[self.send(owners), self.send(tokens)] = self.send(values, torch.float32)

    def fill(self, rows: Sequence[int], cache: SlotCache, lengths: Sequence[int]) -> Tensor:
        """Take keys and values of the first rows of `cache` over; returns the rows as a tensor.

        What lies behind is cleared: hidden by the mask it counts 0 times, and 0 times NaN is NaN.
        """
        at, n, T = self.send(rows), len(rows), max(lengths)
        self.keys[:, at, :, T:] = 0.0
        self.values[:, at, :, T:] = 0.0
        self.keys[:, at, :, :T] = cache.keys[:, :n, :, :T]
        self.values[:, at, :, :T] = cache.values[:, :n, :, :T]
        self.cached[at] = self.send(lengths)
        return at

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Rows `targets` become what rows `sources` are, which are dead afterwards."""
        source, target = self.send(sources), self.send(targets)
        for tensor in self._by_row():
            tensor[target] = tensor[source]
        for held in (self.keys, self.values, self.noise):
            held[:, target] = held[:, source]
        self.remaining[source] = 0

    def grow(self, model: DecodingModel, rows: int, places: int) -> StaticState:
        """A larger one that begins with these rows."""
        grown = StaticState(model, rows, places)
        if self.sums is not None:
            grown.want_offsets()
        for its, mine in zip(grown._by_row(), self._by_row(), strict=True):
            if mine is self.history.tokens:
                its[: self.rows, : self.places] = mine
            else:
                its[: self.rows] = mine
        grown.noise[:, : self.rows, : self.places + 1] = self.noise
        grown.keys[:, : self.rows] = self.keys
        grown.values[:, : self.rows] = self.values
        return grown

    def send(self, values: Sequence[object], dtype: torch.dtype = torch.int64) -> Tensor:
        """Numbers of the host as a tensor on the device, without waiting for it."""
        made = torch.tensor(values, dtype=dtype)
        if self.device.type == "cuda":
            return made.pin_memory().to(self.device, non_blocking=True)
        return made

    def _by_row(self) -> list[Tensor]:
        """All tensors whose first dimension is the row."""
        optional = [tensor for tensor in (self.sums, self.drawn) if tensor is not None]
        return [
            *optional,
            self.history.tokens,
            *_counts(self.history),
            *(self.cached, self.remaining, self.table, self.constant, self.steps, self.filters, self.policy),
            *(self.random, self.fed, self.sampled, self.previous, self.logits, self.hidden, self.penalties),
            *(self.out, self.top_ids, self.top_log_probs),
        ]


def _counts(history: TokenHistory) -> tuple[Tensor, ...]:
    return history.seen, history.length, history.unique, history.bigrams, history.trigrams
