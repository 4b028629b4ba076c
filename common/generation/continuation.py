"""One sequence that is being generated: its settings, the result so far, and the conditions that end it.

A `Continuation` is kept on the host, and the engine passes it the numbers of each step. Tokens are sampled in
`slot_states` and `sampling.batch`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import tiktoken

from common.errors import CheckpointError, InvalidInputError, TidalError
from common.generation.prompt_scores import PromptScore
from common.generation.result import FinishReason, Generation, TokenStep
from common.generation.sampling.noise import fresh_seed
from common.generation.settings import GenerationSettings
from common.generation.text import EncodedPrompt, StopScanner, TextStream, encode_prompt
from tidal_client.vocabulary import GatingMode

COLUMNS = 8
"""The number of values per token: log_prob, entropy, sampling entropy, temperature, top-k, top-p, repetition penalty,
modulation."""


class Continuation:
    """The state of one sequence.

    `result` grows with each token. `ended` is true once the sequence is finished, cancelled, or failed with `error`.

    The constructor raises InvalidInputError if the prompt or `logit_bias` has a token id outside the vocabulary, if the
    prompt is empty and the model has no end-of-text token, or if the seed does not fit into 64 bits.
    """

    def __init__(
        self,
        prompt: str | Sequence[int] | EncodedPrompt,
        settings: GenerationSettings,
        *,
        vocab_size: int,
        gates_trained: bool,
        tokenizer: tiktoken.Encoding,
        seed: int | None = None,
        backend: str = "torch",
    ) -> None:
        self.settings = settings
        self.seed = fresh_seed() if seed is None else seed
        if not -(2**63) <= self.seed < 2**63:
            raise InvalidInputError(f"seed {self.seed} does not fit into 64 bits; choose one from 0 to 2^63 − 1")
        ids = prompt.ids if isinstance(prompt, EncodedPrompt) else encode_prompt(tokenizer, prompt, vocab_size)
        self._end_of_text = tokenizer.eot_token if tokenizer.eot_token < vocab_size else None
        if not ids and self._end_of_text is None:
            raise InvalidInputError("the prompt is empty and this model has no end-of-text token; give a prompt")
        unknown = next((token for token, _ in settings.logit_bias if not 0 <= token < vocab_size), None)
        if unknown is not None:
            raise InvalidInputError(f"logit_bias names token {unknown}; the model's vocabulary is 0..{vocab_size - 1}")
        gates_fed = gates_trained and settings.gating_mode is not GatingMode.NONE
        self.result = Generation(ids, settings.effective(self.seed, gates_fed=gates_fed, backend=backend))
        self.ended = False
        self.error: TidalError | None = None
        self._text = TextStream(tokenizer)
        self._scanner = StopScanner(settings.stop)
        self._has_top_k = settings.gating_mode is not GatingMode.NONE or settings.plain_parameters.top_k is not None
        self._length = 0
        self._started = time.monotonic()

    @property
    def model_input(self) -> list[int]:
        """The tokens that the model reads first: the prompt, or the end-of-text token when the prompt is empty."""
        if self.result.prompt_token_ids:
            return self.result.prompt_token_ids
        assert self._end_of_text is not None
        return [self._end_of_text]

    def record_prefill(self, truncated: int, scores: list[PromptScore] | None) -> None:
        """Record that the model has read the prompt except for its first `truncated` tokens; store requested scores."""
        result = self.result
        result.truncated = truncated
        if self.settings.score_prompt:
            # An end-of-text token that replaces an empty prompt has no score. Equal prompts are scored once, with the
            # largest number of alternatives that any of them requests; here each sequence gets the number that it
            # requests.
            count = self.settings.top_log_probs
            own_scores = [score._replace(alternatives=score.alternatives[:count]) for score in scores or []]
            result.prompt_scores = own_scores if result.prompt_token_ids else []
        if self.settings.max_tokens == 0:
            self.end(FinishReason.LENGTH)

    def record(
        self, token: int, numbers: Sequence[float], alternatives: Sequence[tuple[int, float]] = ()
    ) -> TokenStep | None:
        """Add a sampled token with its `COLUMNS` numbers. Return None if the token is not part of the text."""
        log_prob, entropy, sampling_entropy, temperature, top_k, top_p, penalty, modulation = numbers
        if not math.isfinite(log_prob):
            self.fail(
                CheckpointError(
                    "the model produces logits that are not finite: its weights are damaged or its training diverged; "
                    "use another checkpoint"
                )
            )
            return None
        settings, result = self.settings, self.result
        if token == self._end_of_text and not settings.ignore_end_of_text:
            self.end(FinishReason.STOP)
            return None
        gated = settings.gating_mode is not GatingMode.NONE
        last = len(result.token_ids) + 1 == settings.max_tokens
        start, completed = self._length, self._text.push(token, last=last)
        self._length += len(completed)
        text, stopped = self._scanner.push(completed)
        if last and not stopped:
            text += self._scanner.finish()
        step = TokenStep(
            token_id=token,
            text=text,
            modulation=modulation if gated else None,
            temperature=temperature,
            top_k=int(top_k) if self._has_top_k else None,
            top_p=top_p,
            repetition_penalty=penalty,
            log_prob=log_prob,
            entropy=entropy,
            sampling_entropy=sampling_entropy,
            start=start,
            alternatives=list(alternatives[: settings.top_log_probs]),
        )
        result.token_ids.append(token)
        result.trajectory.append(step)
        if stopped:
            self._close(FinishReason.STOP)
        elif last:
            self._close(FinishReason.LENGTH)
        return step

    def end(self, reason: FinishReason) -> None:
        """End the sequence; its last token also gets the text that the stop scanner held back. May be called twice."""
        if self.ended:
            return
        rest, stopped = self._scanner.push(self._text.finish())
        if not stopped:
            rest += self._scanner.finish()
        if self.result.trajectory:
            self.result.trajectory[-1].text += rest
        self._close(reason)

    def fail(self, error: TidalError) -> None:
        """End the sequence with `error`. Has no effect once the sequence has ended."""
        if not self.ended:
            self.error = error
            self.end(FinishReason.CANCELLED)

    def _close(self, reason: FinishReason) -> None:
        result = self.result
        result.finish_reason = reason
        result.text = "".join(step.text for step in result.trajectory)
        result.elapsed_seconds = time.monotonic() - self._started
        self.ended = True
