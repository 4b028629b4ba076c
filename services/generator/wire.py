"""Generations as clients see them: camelCase, described in `common.jobs.generation_request`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.data import load_tokenizer
from common.errors import TidalError
from common.generation import Generation, TokenStep
from common.generation.text import token_bytes


def wire_token(index: int, step: TokenStep) -> dict[str, Any]:
    """One token."""
    token = {
        "index": index,
        "id": step.token_id,
        "text": step.text,
        "modulation": step.modulation,
        "temperature": step.temperature,
        "topK": step.top_k,
        "topP": step.top_p,
        "repetitionPenalty": step.repetition_penalty,
        "logProb": step.log_prob,
        "entropy": step.entropy,
        "samplingEntropy": step.sampling_entropy,
    }
    if step.alternatives:
        token["alternatives"] = [
            {"id": other, "text": _text(other), "logProb": log_prob} for other, log_prob in step.alternatives
        ]
    return token


def wire_reply(generation: Generation) -> dict[str, Any]:
    """The whole of one choice."""
    effective = {_camel(name): value for name, value in asdict(generation.effective).items()}
    ranges = generation.effective.modulation_config
    effective["modulationConfig"] = ranges.model_dump(mode="json") if ranges is not None else None
    return {
        "text": generation.text,
        "tokensGenerated": len(generation.token_ids),
        "promptTokens": len(generation.prompt_token_ids),
        "elapsedMs": round(generation.elapsed_seconds * 1000, 3),
        "finishReason": str(generation.finish_reason),
        "truncated": generation.truncated,
        "trajectory": [wire_token(i, step) for i, step in enumerate(generation.trajectory)],
        "effective": effective,
    }


def wire_error(error: TidalError) -> dict[str, Any]:
    """What an `error` event carries."""
    return {"code": error.code, "message": error.message, "status": error.status}


def _text(token: int) -> str:
    return token_bytes(load_tokenizer(), token).decode("utf-8", errors="replace")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
