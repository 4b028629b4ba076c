"""Continuous batching: continuations join a running batch, each step samples one token for all, ended ones are removed.

    engine = DecodingEngine(DecodingModel(model))
    engine.join([continuation, …])
    while engine.active:
        engine.step(on_token)

The result of a sequence depends on its prompt, its seed and its settings, not on the batch it runs in: its noise is a
function of seed and step, and no kernel mixes sequences. Only rounding differs, because the blocks of the matrix
products depend on the number of slots in use. This can change the token if two candidates are almost equally likely.
Requests, deadlines and the wire format are in `services.generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.generation.continuation import Continuation
from common.generation.decoding_model import DecodingModel
from common.generation.result import TokenStep
from common.generation.sampling.batch import SampledBatch, sample_batch
from common.generation.sampling.logit_adjustments import LogitAdjustments
from common.generation.slot_states import SlotStates, StepPlan
from common.generation.window import Window
from tidal_client.vocabulary import GatingMode

OnToken = Callable[[Continuation, TokenStep], None]


class _PendingTokens(NamedTuple):
    """Sampled tokens that the model has not read yet, as a tensor and as a list on the host, and their modulations."""

    token: Tensor
    on_host: list[int]
    modulation: Tensor


class DecodingEngine:
    """One running batch over one model; not thread-safe. `active` has the sequences in the order of their slots."""

    def __init__(self, model: DecodingModel) -> None:
        self.model = model
        self.active: list[Continuation] = []
        self._slots = SlotStates(model.config.vocab_size, device=model.device)
        self._logit_adjustments = LogitAdjustments(model.config.vocab_size, device=model.device)
        self._window = Window(model)
        self._pending: _PendingTokens | None = None

    @property
    def nbytes(self) -> int:
        """Return the memory of the batch in bytes, without the weights."""
        return self._window.nbytes

    @torch.inference_mode()
    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill the prompts (equal ones once) and add the sequences to the batch.

        Do not call this between `sample` and `advance`. A sequence with `max_tokens` 0 ends here, and the next `sample`
        removes it.
        """
        if not continuations:
            return
        alternatives = [
            continuation.settings.top_log_probs if continuation.settings.score_prompt else None
            for continuation in continuations
        ]
        scores = self._window.join([continuation.model_input for continuation in continuations], alternatives)
        first: dict[tuple[int, GatingMode], int] = {}
        for continuation, prompt_scores in zip(continuations, scores, strict=True):
            prompt, settings, slot = continuation.result.prompt_token_ids, continuation.settings, len(self.active)
            # The choices of one request share one list of token ids, so `id` finds sequences with the same prompt.
            copy_from = first.setdefault((id(prompt), settings.gating_mode), slot)
            self._slots.join(prompt, settings, continuation.seed, copy_from=None if copy_from == slot else copy_from)
            self._logit_adjustments.join(len(self.active), continuation.settings)
            self.active.append(continuation)
            continuation.record_prefill(self._window.truncated[len(self.active) - 1], prompt_scores)

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Generate one token for every sequence: `sample`, then `advance`."""
        removed = self.sample(on_token)
        self.advance()
        return removed

    @torch.inference_mode()
    def sample(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Sample a token for every sequence.

        Returns the sequences that were removed because they ended in this step, or because the caller ended them
        before.
        """
        n = len(self.active)
        if n == 0:
            return []
        slots = self._slots
        logits = self._window.logits
        plan = slots.plan(logits, self._window.hidden)
        self._logit_adjustments.apply(logits)
        sampled = sample_batch(logits, slots.tokens, plan.parameters, plan.uniform, slots.traits, slots.long_sequences)
        tokens: list[int] = sampled.token.tolist()
        finite = self._record(plan, sampled, tokens, on_token)
        slots.append(sampled.token, plan.modulation)
        self._logit_adjustments.append(sampled.token)
        removed, order = self._remove_ended(finite)
        token, modulation = sampled.token, plan.modulation
        if removed:
            tokens = [tokens[slot] for slot in order]
            token, modulation = token[order], modulation[order]
        self._pending = _PendingTokens(token, tokens, modulation)
        return removed

    @torch.inference_mode()
    def advance(self) -> None:
        """Decode the sampled tokens, which computes the logits of the next step."""
        sampled, self._pending = self._pending, None
        if sampled is None or not sampled.on_host:
            return
        scales = self.model.gate_scales(sampled.modulation, self._slots.gated)
        self._window.append(sampled.token, sampled.on_host, scales)
        for slot, continuation in enumerate(self.active):
            continuation.result.truncated = self._window.truncated[slot]

    def _remove_ended(self, finite: Sequence[bool]) -> tuple[list[Continuation], list[int]]:
        """Remove ended sequences. Return them, and for each remaining slot the former slot of its sequence."""
        removed, order = [], list(range(len(self.active)))
        for slot in reversed(range(len(self.active))):
            if self.active[slot].ended:
                removed.append(self.active[slot])
                self._slots.remove(slot)
                self._logit_adjustments.remove(slot, len(self.active) - 1)
                self._window.remove(slot, clear=not finite[slot])
                self.active[slot], order[slot] = self.active[-1], order[-1]
                self.active.pop()
                order.pop()
        return removed, order

    def _record(
        self, plan: StepPlan, sampled: SampledBatch, tokens: Sequence[int], on_token: OnToken | None
    ) -> list[bool]:
        """Add the tokens to the continuations. Return for each slot whether its logits are finite."""
        parameters = plan.parameters
        columns = [sampled.log_prob, sampled.entropy, sampled.sampling_entropy, parameters.temperature]
        columns += [parameters.top_k.float(), parameters.top_p, parameters.repetition_penalty, plan.modulation]
        numbers: list[list[float]] = torch.stack(columns, dim=1).tolist()
        alternatives = _alternatives(sampled.top_ids, sampled.top_log_probs, len(tokens))
        for continuation, token, values, most_likely in zip(self.active, tokens, numbers, alternatives, strict=True):
            if continuation.ended:
                continue
            step = continuation.record(token, values, most_likely)
            if step is not None and on_token is not None:
                on_token(continuation, step)
        return [math.isfinite(log_prob) for log_prob, *_ in numbers]


def _alternatives(ids: Tensor | None, log_probs: Tensor | None, n: int) -> list[list[tuple[int, float]]]:
    if ids is None or log_probs is None:
        return [[] for _ in range(n)]
    return [list(zip(*row, strict=True)) for row in zip(ids.tolist(), log_probs.tolist(), strict=True)]
