"""One prompt that is being continued: what it is asked, what has come of it so far, and when it is over.

Lives on the host; the numbers of each step come from the engine. Leaves out: how tokens are sampled (`rows`,
`sampling.batch`).
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
"""Numbers per token: log_prob, entropy, sampling entropy, temperature, top-k, top-p, penalty, modulation."""


class Continuation:
    """`result` grows while it runs. `ended` says that it is over: finished, cancelled, or failed with `error`.

    Raises InvalidInputError when the prompt cannot be read, or is empty and the model has no end-of-text.
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
    ) -> None:
        self.settings = settings
        self.seed = fresh_seed() if seed is None else seed
        if not -(2**63) <= self.seed < 2**63:
            raise InvalidInputError(f"seed {self.seed} does not fit into 64 bits; choose one from 0 to 2^63 − 1")
        ids = prompt.ids if isinstance(prompt, EncodedPrompt) else encode_prompt(tokenizer, prompt, vocab_size)
        self._end_of_text = tokenizer.eot_token if tokenizer.eot_token < vocab_size else None
        if not ids and self._end_of_text is None:
            raise InvalidInputError("the prompt is empty and this model knows no end-of-text token; give a prompt")
        unknown = next((token for token, _ in settings.logit_bias if not 0 <= token < vocab_size), None)
        if unknown is not None:
            raise InvalidInputError(f"logit_bias names token {unknown}; the model knows 0..{vocab_size - 1}")
        gates_fed = gates_trained and settings.gating_mode is not GatingMode.NONE
        self.result = Generation(ids, settings.effective(self.seed, gates_fed=gates_fed))
        self.ended = False
        self.error: TidalError | None = None
        self._text = TextStream(tokenizer)
        self._scanner = StopScanner(settings.stop)
        self._has_top_k = settings.gating_mode is not GatingMode.NONE or settings.plain.top_k is not None
        self._length = 0
        self._started = time.monotonic()

    @property
    def model_input(self) -> list[int]:
        """What the model is first given; an empty prompt starts a new document."""
        if self.result.prompt_token_ids:
            return self.result.prompt_token_ids
        assert self._end_of_text is not None
        return [self._end_of_text]

    def prefilled(self, truncated: int, scores: list[PromptScore] | None) -> None:
        """The model has read the prompt, without its first `truncated` tokens."""
        result = self.result
        result.truncated = truncated
        if self.settings.score_prompt:
            # The start of a new document is no token of the prompt. Of equal prompts the one that wants most is scored.
            most = self.settings.top_log_probs
            told = [score._replace(alternatives=score.alternatives[:most]) for score in scores or []]
            result.prompt_scores = told if result.prompt_token_ids else []
        if self.settings.max_tokens == 0:
            self.end(FinishReason.LENGTH)

    def record(
        self, token: int, numbers: Sequence[float], alternatives: Sequence[tuple[int, float]] = ()
    ) -> TokenStep | None:
        """Take a drawn token with its `COLUMNS` numbers; None where it is not part of the text."""
        log_prob, entropy, sampling_entropy, temperature, top_k, top_p, penalty, modulation = numbers
        if not math.isfinite(log_prob):
            self.fail(CheckpointError("the model gives no finite logits; its weights are damaged or diverged"))
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
        """It is over; what was held back of the text belongs to its last token. Does nothing the second time."""
        if self.ended:
            return
        rest, stopped = self._scanner.push(self._text.finish())
        if not stopped:
            rest += self._scanner.finish()
        if self.result.trajectory:
            self.result.trajectory[-1].text += rest
        self._close(reason)

    def fail(self, error: TidalError) -> None:
        """It cannot go on. Does nothing once it has ended."""
        if not self.ended:
            self.error = error
            self.end(FinishReason.CANCELLED)

    def _close(self, reason: FinishReason) -> None:
        result = self.result
        result.finish_reason = reason
        result.text = "".join(step.text for step in result.trajectory)
        result.elapsed_seconds = time.monotonic() - self._started
        self.ended = True
