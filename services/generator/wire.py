"""Converts generated tokens and results to the data of the events that clients receive.

The data is in camelCase and typed in `tidal_client.wire.generation_event`. The argument `tokenizer` is always the
encoding of the vocabulary of the model that generated the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import tiktoken

from common.generation import Generation, TokenStep
from common.generation.text import TextStream, token_text
from tidal_client.wire.generation_event import Alternative, DoneEvent, PromptEvent, TokenEvent


def wire_token(index: int, step: TokenStep, tokenizer: tiktoken.Encoding, *, log_probs: bool = False) -> TokenEvent:
    """Return the data of the event `token`.

    With `log_probs`, it also contains the text of the token by itself and the position at which it begins in the
    generated text.
    """
    token: TokenEvent = {
        "index": index,
        "id": step.token_id,
        "text": step.text,
        "modulation": None if step.modulation is None else _round_float32(step.modulation),
        "temperature": _round_float32(step.temperature),
        "topK": step.top_k,
        "topP": _round_float32(step.top_p),
        "repetitionPenalty": _round_float32(step.repetition_penalty),
        "logProb": _round_float32(step.log_prob),
        "entropy": _round_float32(step.entropy),
        "samplingEntropy": _round_float32(step.sampling_entropy),
    }
    if log_probs:
        token["token"], token["start"] = token_text(tokenizer, step.token_id), step.start
    if step.alternatives:
        token["alternatives"] = _alternatives(step.alternatives, tokenizer)
    return token


def wire_prompt(generation: Generation, tokenizer: tiktoken.Encoding) -> PromptEvent:
    """Return the data of the event `prompt`. It contains the scores of the prompt's tokens if they were computed."""
    stream, text = TextStream(tokenizer), ""
    starts = []
    for token in generation.prompt_token_ids:
        starts.append(len(text))
        text += stream.push(token)
    prompt: PromptEvent = {"text": text + stream.finish()}
    if generation.prompt_scores is not None:
        prompt["tokens"] = [
            {
                "id": score.token_id,
                "token": token_text(tokenizer, score.token_id),
                "start": start,
                "logProb": None if score.log_prob is None else _round_float32(score.log_prob),
                "alternatives": _alternatives(score.alternatives, tokenizer),
            }
            for start, score in zip(starts, generation.prompt_scores, strict=True)
        ]
    return prompt


def wire_reply(
    generation: Generation, tokenizer: tiktoken.Encoding, *, log_probs: bool = False, trajectory: bool = True
) -> DoneEvent:
    """Return the data of the event `done` for one choice. With `trajectory`, it contains the values of every token."""
    effective = {_camel_case(name): value for name, value in asdict(generation.effective).items()}
    ranges = generation.effective.modulation_config
    effective["modulationConfig"] = ranges.model_dump(mode="json") if ranges is not None else None
    steps = generation.trajectory if trajectory else []
    tokens = [wire_token(number, step, tokenizer, log_probs=log_probs) for number, step in enumerate(steps)]
    reply: DoneEvent = {
        "text": generation.text,
        "tokensGenerated": len(generation.token_ids),
        "promptTokens": len(generation.prompt_token_ids),
        "elapsedMs": round(generation.elapsed_seconds * 1000, 3),
        "finishReason": str(generation.finish_reason),
        "truncated": generation.truncated,
        "trajectory": tokens,
        "effective": effective,
    }
    if not trajectory:
        del reply["trajectory"]
    return reply


def _alternatives(alternatives: Sequence[tuple[int, float]], tokenizer: tiktoken.Encoding) -> list[Alternative]:
    return [
        {"id": token, "text": token_text(tokenizer, token), "logProb": _round_float32(log_prob)}
        for token, log_prob in alternatives
    ]


def _round_float32(value: float) -> float:
    """Round a float32 to its significant digits, so that JSON contains 0.8 instead of 0.800000011920929."""
    return round(value, 6)


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
