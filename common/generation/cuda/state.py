"""The state of a running batch, in tensors of fixed size on which a captured step can be replayed.

The tensors keep their addresses; only `grow` returns new ones. A slot whose `tokens_remaining` is 0 is inactive: a step
does not change its counts, and the outputs for it are never read. Shapes: R slots, L layers, H heads, K head width, V
vocabulary, D model width. `batch` assigns slots to sequences, and the step itself is in `step`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.controller import TokenHistory
from common.generation.cpu.packed_linear import Precision
from common.generation.decoding_model import DecodingModel
from common.generation.sampling.batch import CandidateFilter
from common.generation.sampling.noise import STREAMS, row_noise
from common.generation.settings import MAX_TOP_LOG_PROBS, GenerationSettings
from common.generation.slot_cache import SlotCache
from common.generation.slot_states import COLUMNS, MODULATION, SPANS, candidate_filter, parameter_columns
from common.model.transfer import to_device
from tidal_client.vocabulary import GatingMode

FILTERS = {CandidateFilter.TOP_K: 0, CandidateFilter.TOP_P: 1, CandidateFilter.FULL_DISTRIBUTION: 2}
NUMBERS = 9
"""Number of columns of `outputs`: one for the token, then `continuation.COLUMNS`."""


class StaticState:
    """The tensors of `slots` sequences of up to `capacity` tokens each, including the prompt."""

    @torch.inference_mode(False)  # torch.compile does not accept inference tensors that a step writes to
    def __init__(self, model: DecodingModel, slots: int, capacity: int) -> None:
        c, device = model.config, model.device
        self.slots, self.capacity, self.device = slots, capacity, device
        self.context = c.context_length
        dtype = torch.bfloat16 if model.precision is Precision.BFLOAT16 else torch.float32
        shape = (c.num_layers, slots, c.num_heads, c.context_length, c.head_dim)

        def integers(*sizes: int) -> Tensor:
            return torch.zeros(slots, *sizes, dtype=torch.int64, device=device)

        def booleans(*sizes: int) -> Tensor:
            return torch.zeros(slots, *sizes, dtype=torch.bool, device=device)

        def floats(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(slots, *sizes, dtype=dtype, device=device)

        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.cache_lengths = integers()
        """Number of positions in the cache of each slot."""
        self.tokens_remaining = integers()
        """Number of tokens that may still be sampled in each slot."""
        self.history = TokenHistory(slots, capacity, c.vocab_size, device=device)
        self.table = floats(COLUMNS, dtype=torch.float64)
        # Unused slots need a temperature other than 0, because a step divides their logits by it.
        self.table[:, :SPANS] = 1.0
        self.constant_parameters = floats(SPANS) + 1.0
        """Temperature, top-k, top-p and repetition penalty of slots whose modulation is constant (modes `none` and
        `fixed`)."""
        self.noise = torch.zeros(STREAMS, slots, capacity + 1, device=device)
        """The result of `row_noise` for every step, computed when a sequence joins. This saves 30 small operations in
        each step."""
        self.steps, self.filters, self.policy_numbers = integers(), integers(), integers()
        self.random_modulation, self.gated, self.sample_actions = booleans(), booleans(), booleans()
        self.previous_modulation = floats()
        self.logits = floats(c.vocab_size)
        self.hidden = floats(c.d_model)
        assert c.vocab_size <= 2**24, "`outputs` holds token ids as float32, which is exact up to 2^24"
        self.outputs = floats(NUMBERS)
        self.top_ids = integers(min(MAX_TOP_LOG_PROBS, c.vocab_size))
        self.top_log_probs = floats(min(MAX_TOP_LOG_PROBS, c.vocab_size))
        # `logit_adjustments` and `generated` (R, V) are described in `sampling.logit_adjustments` and are allocated
        # when a sequence first needs them.
        self.logit_adjustments: Tensor | None = None
        self.generated: Tensor | None = None
        self.penalties = floats(2)
        self.slot_numbers = torch.arange(slots, device=device)
        self.positions = torch.arange(c.context_length, device=device)
        rotations = model.packed_weights.rotations
        self.cos, self.sin = rotations.real.contiguous(), rotations.imag.contiguous()

    @property
    def nbytes(self) -> int:
        """Return the memory of the state in bytes."""
        return (
            sum(tensor.nbytes for tensor in self._slot_tensors())
            + self.keys.nbytes
            + self.values.nbytes
            + self.noise.nbytes
        )

    @torch.inference_mode(False)
    def allocate_logit_adjustments(self) -> None:
        """Allocate the tensors for logit bias, presence penalty and frequency penalty."""
        if self.logit_adjustments is None:
            self.logit_adjustments = torch.zeros_like(self.logits)
            self.generated = torch.zeros_like(self.logits, dtype=torch.bool)

    def start_sequences(
        self,
        slots: Sequence[int],
        prompts: Sequence[Sequence[int]],
        settings: Sequence[GenerationSettings],
        seeds: Sequence[int],
        policies: Sequence[int],
    ) -> None:
        """Set up `slots` for new sequences; `copy_cache` must follow.

        `policies` holds the number that each sequence's policy has in `StepShape.policies`, or −1 without a policy.
        """
        at = self.send(slots)
        prompt_history = TokenHistory.of(prompts, vocab_size=self.history.vocab_size, device=self.device)
        self.history.tokens[at] = prompt_history.tokens.new_full((len(slots), self.capacity), -1)
        self.history.tokens[at, : prompt_history.capacity] = prompt_history.tokens
        for target, source in zip(_counts(self.history), _counts(prompt_history), strict=True):
            target[at] = source
        columns = [parameter_columns(slot_settings, self.history.vocab_size) for slot_settings in settings]
        table = self.send(columns, torch.float64)
        parameters = table[:, :SPANS] + table[:, MODULATION, None] * table[:, SPANS:MODULATION]
        parameters[:, 1].round_()
        self.table[at], self.constant_parameters[at] = table, parameters.float()
        repeated_seeds = self.send(seeds).repeat_interleave(self.capacity + 1)
        step_numbers = torch.arange(self.capacity + 1, device=self.device).repeat(len(slots))
        self.noise[:, at] = row_noise(repeated_seeds, step_numbers).view(STREAMS, len(slots), -1)
        self.policy_numbers[at] = self.send(policies)
        self.filters[at] = self.send([FILTERS[candidate_filter(slot_settings)] for slot_settings in settings])
        modes = [slot_settings.gating_mode for slot_settings in settings]
        self.random_modulation[at] = self.send([mode is GatingMode.RANDOM for mode in modes], torch.bool)
        self.gated[at] = self.send([mode is not GatingMode.NONE for mode in modes], torch.bool)
        self.sample_actions[at] = self.send([slot_settings.sample_actions for slot_settings in settings], torch.bool)
        self.tokens_remaining[at] = self.send([slot_settings.max_tokens for slot_settings in settings])
        self.steps.index_fill_(0, at, 0)
        self.previous_modulation.index_fill_(0, at, 0.0)
        if self.logit_adjustments is not None and self.generated is not None:
            self.logit_adjustments.index_fill_(0, at, 0.0)
            self.generated.index_fill_(0, at, False)
            penalties = [
                [slot_settings.presence_penalty, slot_settings.frequency_penalty] for slot_settings in settings
            ]
            self.penalties[at] = self.send(penalties, torch.float32)
            bias = [
                (slot, *pair)
                for slot, slot_settings in zip(slots, settings, strict=True)
                for pair in slot_settings.logit_bias
            ]
            if bias:
                owners, tokens, values = zip(*bias, strict=True)
                self.logit_adjustments[self.send(owners), self.send(tokens)] = self.send(values, torch.float32)

    def copy_cache(self, slots: Sequence[int], cache: SlotCache, lengths: Sequence[int]) -> Tensor:
        """Copy keys and values of the first slots of `cache` to `slots`. Return `slots` as a tensor.

        The positions after the copied ones are set to 0. The mask gives them weight 0, but NaN in them would still make
        the result NaN.
        """
        at, n, T = self.send(slots), len(slots), max(lengths)
        self.keys[:, :, :, T:].index_fill_(1, at, 0.0)
        self.values[:, :, :, T:].index_fill_(1, at, 0.0)
        self.keys[:, at, :, :T] = cache.keys[:, :n, :, :T]
        self.values[:, at, :, :T] = cache.values[:, :n, :, :T]
        self.cache_lengths[at] = self.send(lengths)
        return at

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy the slots `sources` to the slots `targets`, and make `sources` inactive."""
        source, target = self.send(sources), self.send(targets)
        for tensor in self._slot_tensors():
            tensor[target] = tensor[source]
        for tensor in (self.keys, self.values, self.noise):
            tensor[:, target] = tensor[:, source]
        self.tokens_remaining.index_fill_(0, source, 0)

    def grow(self, model: DecodingModel, slots: int, capacity: int) -> StaticState:
        """Return a larger state whose first slots are copies of the slots of this state."""
        grown = StaticState(model, slots, capacity)
        if self.logit_adjustments is not None:
            grown.allocate_logit_adjustments()
        for target, source in zip(grown._slot_tensors(), self._slot_tensors(), strict=True):
            if source is self.history.tokens:
                target[: self.slots, : self.capacity] = source
            else:
                target[: self.slots] = source
        grown.noise[:, : self.slots, : self.capacity + 1] = self.noise
        grown.keys[:, : self.slots] = self.keys
        grown.values[:, : self.slots] = self.values
        return grown

    def send(self, values: Sequence[object], dtype: torch.dtype = torch.int64) -> Tensor:
        """Copy numbers of the host to a tensor on the device and return it, without waiting for the device."""
        return to_device(torch.tensor(values, dtype=dtype), self.device)

    def _slot_tensors(self) -> list[Tensor]:
        """Return all tensors whose first dimension is the slot."""
        optional = [tensor for tensor in (self.logit_adjustments, self.generated) if tensor is not None]
        return [
            *optional,
            self.history.tokens,
            *_counts(self.history),
            *(
                self.cache_lengths,
                self.tokens_remaining,
                self.table,
                self.constant_parameters,
                self.steps,
                self.filters,
                self.policy_numbers,
            ),
            *(
                self.random_modulation,
                self.gated,
                self.sample_actions,
                self.previous_modulation,
                self.logits,
                self.hidden,
                self.penalties,
            ),
            *(self.outputs, self.top_ids, self.top_log_probs),
        ]


def _counts(history: TokenHistory) -> tuple[Tensor, ...]:
    return history.seen, history.length, history.unique, history.bigrams, history.trigrams
