"""Prompts to text: `generate` for one, `generate_batch` for many at once.

    generate(load_model("model.pth"), "Once upon a time", gating_mode="fixed", modulation=0.3).text

A row's result depends on its prompt, its seed and the settings, not on the batch it runs in (to rounding). Mode `none`
takes the given temperature, top-k, top-p and penalty; the other modes take bases and ranges from the modulation map.
Leaves out: serving (queues, checkpoints, wire format), which is `services.generator`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import tiktoken
import torch
from torch import Tensor

from common.config import ModulationConfig
from common.controller import (
    DecodingParameterRows,
    GatingPolicy,
    TokenHistory,
    decoding_parameter_rows,
    parameter_rows,
)
from common.data import load_tokenizer
from common.errors import CheckpointError, InvalidInputError
from common.generation.gating import NEUTRAL_MODULATION, Gating, GatingMode, StepContext, make_gating
from common.generation.noise import RowNoise, fresh_seed
from common.generation.result import FinishReason, Generation, TokenStep
from common.generation.sampling import SampledTokens, sample_tokens
from common.generation.settings import GenerationSettings
from common.generation.text import TextStream, encode_prompt
from common.generation.window import SlidingWindow
from common.model import TransformerLM

OnToken = Callable[[int, TokenStep], None]


def generate(
    model: TransformerLM,
    prompt: str | Sequence[int],
    *,
    max_tokens: int = 50,
    gating_mode: GatingMode | str = GatingMode.NONE,
    modulation: float = NEUTRAL_MODULATION,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float = 1.0,
    repetition_penalty: float = 1.2,
    seed: int | None = None,
    policy: GatingPolicy | None = None,
    modulation_config: ModulationConfig | None = None,
    sample_actions: bool = False,
    on_token: Callable[[TokenStep], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    tokenizer: tiktoken.Encoding | None = None,
) -> Generation:
    """Continue `prompt` (text or token ids; empty: a new document) by up to `max_tokens` tokens.

    `on_token` hears of every token at once; `cancelled` is asked before every token and ends the generation. One seed
    gives one result; without it a fresh one is drawn and reported in `effective`. Raises InvalidInputError for values
    out of range. The arguments are those of `GenerationSettings`.
    """
    settings = GenerationSettings(
        max_tokens=max_tokens,
        gating_mode=gating_mode,
        modulation=modulation,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        policy=policy,
        modulation_config=modulation_config,
        sample_actions=sample_actions,
    )
    listener = None if on_token is None else lambda _, step: on_token(step)
    seeds = None if seed is None else [seed]
    return generate_batch(
        model, [prompt], settings, seeds=seeds, on_token=listener, cancelled=cancelled, tokenizer=tokenizer
    )[0]


@torch.inference_mode()
def generate_batch(
    model: TransformerLM,
    prompts: Sequence[str | Sequence[int]],
    settings: GenerationSettings | None = None,
    *,
    seeds: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    cancelled: Callable[[], bool] | None = None,
    tokenizer: tiktoken.Encoding | None = None,
) -> list[Generation]:
    """Continue every prompt, all in one batch. `seeds` has one number per prompt; `on_token` gets (row, step).

    The model runs in evaluation mode and is left in the mode it was in. Raises InvalidInputError for values out of
    range, CheckpointError when the model gives no finite logits.
    """

    settings = settings or GenerationSettings()
    if not prompts:
        return []
    if seeds is None:
        seeds = [fresh_seed() for _ in prompts]
    if len(seeds) != len(prompts):
        raise InvalidInputError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one each")
    was_training = model.training
    model.eval()
    try:
        run = _Run(model, prompts, settings, list(seeds), tokenizer or load_tokenizer())
        return run.to_end(on_token, cancelled)
    finally:
        model.train(was_training)


class _Run:
    """The state of one batch between its first and its last token."""

    def __init__(
        self,
        model: TransformerLM,
        prompts: Sequence[str | Sequence[int]],
        settings: GenerationSettings,
        seeds: list[int],
        tokenizer: tiktoken.Encoding,
    ) -> None:
        self.model, self.settings, self.tokenizer = model, settings, tokenizer
        self.started = time.monotonic()
        V = model.config.vocab_size
        self.ids = [encode_prompt(tokenizer, prompt, V) for prompt in prompts]
        self.end_of_text = tokenizer.eot_token if tokenizer.eot_token < V else None
        self.map = settings.map
        self.feed_gates = model.gates_trained and settings.mode is not GatingMode.NONE
        self.gating: Gating = make_gating(
            settings.mode,
            modulation=settings.modulation,
            policy=settings.policy,
            sample_actions=settings.sample_actions,
            generator=torch.Generator(device=model.device).manual_seed(seeds[0]),
        )
        self.noise = RowNoise(seeds, device=model.device)
        self.history = TokenHistory.of(self.ids, vocab_size=V, room=settings.max_tokens, device=model.device)
        self.window = SlidingWindow(model, len(self.ids))
        self.texts = [TextStream(tokenizer) for _ in self.ids]
        self.results = [
            Generation(ids, settings.effective(seed, gates_fed=self.feed_gates))
            for ids, seed in zip(self.ids, seeds, strict=True)
        ]
        self.active = [True] * len(self.ids)

    def to_end(self, on_token: OnToken | None, cancelled: Callable[[], bool] | None) -> list[Generation]:
        logits, hidden = self.window.begin([ids or [self._start_token()] for ids in self.ids])
        previous = torch.zeros(len(self.ids), device=logits.device)
        for step in range(self.settings.max_tokens):
            if cancelled is not None and cancelled():
                self._end_all(FinishReason.CANCELLED)
                break
            modulation, parameters, sampled = self._sample(step, logits, hidden, previous)
            tokens = sampled.token.tolist()
            self._record(step, modulation, parameters, sampled, tokens, on_token)
            if not any(self.active):
                break
            if modulation is not None:
                previous = modulation[:, 0]
            self.history.append(sampled.token, torch.tensor(self.active, device=logits.device))
            logits, hidden = self.window.append(tokens, modulation if self.feed_gates else None)
        self._end_all(FinishReason.LENGTH)
        return self.results

    def _sample(
        self, step: int, logits: Tensor, hidden: Tensor, previous: Tensor
    ) -> tuple[Tensor | None, DecodingParameterRows, SampledTokens]:
        B, V = logits.shape
        for_modulation, for_token = self.noise.step()
        length = self.settings.episode_length or self.settings.max_tokens
        steps = torch.full((B,), step, device=logits.device)
        modulation = self.gating(StepContext(self.history, logits, hidden, steps, length, previous, for_modulation))
        if modulation is None:
            parameters = parameter_rows(self.settings.plain, B, V, device=logits.device)
            most = self.settings.top_k
        else:
            parameters = decoding_parameter_rows(modulation, self.map)
            most = max(round(self.map.top_k.high), 1)
        return modulation, parameters, sample_tokens(logits, self.history.seen, parameters, for_token, most=most)

    def _record(
        self,
        step: int,
        modulation: Tensor | None,
        parameters: DecodingParameterRows,
        sampled: SampledTokens,
        tokens: list[int],
        on_token: OnToken | None,
    ) -> None:
        columns = [sampled.log_prob, sampled.entropy, sampled.sampling_entropy, parameters.temperature]
        columns += [parameters.top_p, parameters.repetition_penalty, parameters.top_k.float()]
        columns += [] if modulation is None else [modulation[:, 0]]
        numbers = torch.stack(columns, dim=1).tolist()
        final = step + 1 == self.settings.max_tokens
        for row, token in enumerate(tokens):
            if not self.active[row]:
                continue
            log_prob, entropy, sampling_entropy, temperature, top_p, penalty, top_k, *rest = numbers[row]
            if not math.isfinite(log_prob):
                raise CheckpointError("the model gives no finite logits; its weights are damaged or diverged")
            if token == self.end_of_text and not self.settings.ignore_end_of_text:
                self._end(row, FinishReason.STOP)
                continue
            entry = TokenStep(
                token_id=token,
                text=self.texts[row].push(token, last=final),
                modulation=rest[0] if rest else None,
                temperature=temperature,
                top_k=int(top_k) if rest or self.settings.top_k is not None else None,
                top_p=top_p,
                repetition_penalty=penalty,
                log_prob=log_prob,
                entropy=entropy,
                sampling_entropy=sampling_entropy,
            )
            self.results[row].token_ids.append(token)
            self.results[row].trajectory.append(entry)
            if on_token is not None:
                on_token(row, entry)
            if final:
                self._end(row, FinishReason.LENGTH)

    def _end(self, row: int, reason: FinishReason) -> None:
        self.active[row] = False
        result = self.results[row]
        result.finish_reason = reason
        result.truncated = self.window.truncated[row]
        result.elapsed_seconds = time.monotonic() - self.started
        if result.trajectory:
            result.trajectory[-1].text += self.texts[row].finish()
        result.text = "".join(entry.text for entry in result.trajectory)
        self.window.end(row)

    def _end_all(self, reason: FinishReason) -> None:
        for row, active in enumerate(self.active):
            if active:
                self._end(row, reason)

    def _start_token(self) -> int:
        if self.end_of_text is None:
            raise InvalidInputError("the prompt is empty and this model knows no end-of-text token; give a prompt")
        return self.end_of_text
