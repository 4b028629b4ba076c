"""Continuous batching: continuations join a running batch, each step draws one token for all, those that end leave.

    engine = DecodingEngine(DecodingModel(model))
    engine.join([continuation, …])
    while engine.active:
        engine.step(on_token)

A row's result depends on its prompt, its seed and its settings, not on the batch it runs in: its noise is a function of
its seed and step, and no kernel mixes rows. What is left are roundings of the matrix products, whose blocks depend on
the number of rows; they matter where two candidates all but tie. Leaves out: requests, deadlines and texts on the wire
(`services.generator`).
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
from common.generation.rows import Plan, Rows
from common.generation.sampling.batch import Drawn, draw
from common.generation.sampling.logit_adjustments import Offsets
from common.generation.window import Window
from tidal_client.vocabulary import GatingMode

OnToken = Callable[[Continuation, TokenStep], None]


class _Drawn(NamedTuple):
    """Tokens that the model has not seen yet, on the device and on the host, and their modulations."""

    token: Tensor
    on_host: list[int]
    modulation: Tensor


class DecodingEngine:
    """One running batch over one model. Not for several threads. `active` are the rows, in order."""

    def __init__(self, model: DecodingModel) -> None:
        self.model = model
        self.active: list[Continuation] = []
        self._rows = Rows(model.config.vocab_size, device=model.device)
        self._offsets = Offsets(model.config.vocab_size, device=model.device)
        self._window = Window(model)
        self._drawn: _Drawn | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the batch, without the weights."""
        return self._window.nbytes

    @torch.inference_mode()
    def join(self, continuations: Sequence[Continuation]) -> None:
        """Prefill these prompts, equal ones once, and take them into the batch; not between `draw` and `advance`.

        One with `max_tokens` 0 has ended then, and leaves with the next `draw`.
        """
        if not continuations:
            return
        scored = [its.settings.top_log_probs if its.settings.score_prompt else None for its in continuations]
        scores = self._window.join([continuation.model_input for continuation in continuations], scored)
        first: dict[tuple[int, GatingMode], int] = {}
        for continuation, its_scores in zip(continuations, scores, strict=True):
            prompt, settings, row = continuation.result.prompt_token_ids, continuation.settings, len(self.active)
            # Choices of one request share their token ids.
            like = first.setdefault((id(prompt), settings.gating_mode), row)
            self._rows.join(prompt, settings, continuation.seed, like=None if like == row else like)
            self._offsets.join(len(self.active), continuation.settings)
            self.active.append(continuation)
            continuation.prefilled(self._window.truncated[len(self.active) - 1], its_scores)

    def step(self, on_token: OnToken | None = None) -> list[Continuation]:
        """One token for every row: `draw`, then `advance`."""
        left = self.draw(on_token)
        self.advance()
        return left

    @torch.inference_mode()
    def draw(self, on_token: OnToken | None = None) -> list[Continuation]:
        """Draw a token for every row. Returns the continuations that have left: ended now, or by the caller before."""
        n = len(self.active)
        if n == 0:
            return []
        rows = self._rows
        logits = self._window.logits
        plan = rows.plan(logits, self._window.hidden)
        self._offsets.apply(logits)
        drawn = draw(logits, rows.tokens, plan.parameters, plan.uniform, rows.known, rows.long)
        tokens: list[int] = drawn.token.tolist()
        finite = self._record(plan, drawn, tokens, on_token)
        rows.append(drawn.token, plan.modulation)
        self._offsets.append(drawn.token)
        left, order = self._remove_ended(finite)
        token, modulation = drawn.token, plan.modulation
        if left:
            tokens = [tokens[row] for row in order]
            token, modulation = token[order], modulation[order]
        self._drawn = _Drawn(token, tokens, modulation)
        return left

    @torch.inference_mode()
    def advance(self) -> None:
        """Give the drawn tokens to the model."""
        drawn, self._drawn = self._drawn, None
        if drawn is None or not drawn.on_host:
            return
        scales = self.model.gate_scales(drawn.modulation, self._rows.fed)
        self._window.append(drawn.token, drawn.on_host, scales)
        for row, continuation in enumerate(self.active):
            continuation.result.truncated = self._window.truncated[row]

    def _remove_ended(self, finite: Sequence[bool]) -> tuple[list[Continuation], list[int]]:
        """Those that left, and for every row that stays the row it was."""
        left, order = [], list(range(len(self.active)))
        for row in reversed(range(len(self.active))):
            if self.active[row].ended:
                left.append(self.active[row])
                self._rows.remove(row)
                self._offsets.remove(row, len(self.active) - 1)
                self._window.remove(row, clear=not finite[row])
                self.active[row], order[row] = self.active[-1], order[-1]
                self.active.pop()
                order.pop()
        return left, order

    def _record(self, plan: Plan, drawn: Drawn, tokens: Sequence[int], on_token: OnToken | None) -> list[bool]:
        """Returns for each row whether its logits are finite."""
        parameters = plan.parameters
        columns = [drawn.log_prob, drawn.entropy, drawn.sampling_entropy, parameters.temperature]
        columns += [parameters.top_k.float(), parameters.top_p, parameters.repetition_penalty, plan.modulation]
        numbers: list[list[float]] = torch.stack(columns, dim=1).tolist()
        alternatives = _alternatives(drawn.top_ids, drawn.top_log_probs, len(tokens))
        for continuation, token, values, likeliest in zip(self.active, tokens, numbers, alternatives, strict=True):
            if continuation.ended:
                continue
            step = continuation.record(token, values, likeliest)
            if step is not None and on_token is not None:
                on_token(continuation, step)
        return [math.isfinite(log_prob) for log_prob, *_ in numbers]


def _alternatives(ids: Tensor | None, log_probs: Tensor | None, n: int) -> list[list[tuple[int, float]]]:
    if ids is None or log_probs is None:
        return [[] for _ in range(n)]
    return [list(zip(*row, strict=True)) for row in zip(ids.tolist(), log_probs.tolist(), strict=True)]
