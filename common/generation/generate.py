"""Functions that continue prompts: `generate` continues one prompt, `generate_batch` many at once.

    generate(load_model("model.pth"), "Once upon a time", gating_mode="fixed", modulation=0.3).text

The result of a sequence depends on its prompt, its seed and the settings, not on the batch it runs in (up to rounding).
Mode `none` uses the given temperature, top-k, top-p and repetition penalty; the other modes take bases and ranges from
the modulation map. Serving (queues, checkpoints, wire format) is in `services.generator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tiktoken

from common.controller import require_same_vocabulary
from common.errors import InvalidInputError
from common.generation.continuation import Continuation
from common.generation.cuda.engine import new_engine
from common.generation.decoding_model import DecodingModel
from common.generation.result import FinishReason, Generation, TokenStep
from common.generation.settings import GenerationSettings
from common.model import TransformerLM

OnToken = Callable[[int, TokenStep], None]


def generate(
    model: TransformerLM | DecodingModel,
    prompt: str | Sequence[int],
    *,
    seed: int | None = None,
    on_token: Callable[[TokenStep], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    tokenizer: tiktoken.Encoding | None = None,
    **settings: Any,
) -> Generation:
    """Continue `prompt` (text or token ids; empty for a new document) by up to `max_tokens` tokens.

    `on_token` is called with every token as soon as it is generated. `cancelled` is called before every token; when it
    returns true, generation ends. The same seed gives the same result; without a seed a new one is chosen and reported
    in `effective`. The other arguments are those of `GenerationSettings`: max_tokens, gating_mode, temperature, policy,
    and so on. Raises InvalidInputError for values out of range, CheckpointError when the model's logits are not finite.
    """
    callback = None if on_token is None else lambda _, step: on_token(step)
    seeds = None if seed is None else [seed]
    return generate_batch(
        model,
        [prompt],
        GenerationSettings(**settings),
        seeds=seeds,
        on_token=callback,
        cancelled=cancelled,
        tokenizer=tokenizer,
    )[0]


def generate_batch(
    model: TransformerLM | DecodingModel,
    prompts: Sequence[str | Sequence[int]],
    settings: GenerationSettings | None = None,
    *,
    seeds: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    cancelled: Callable[[], bool] | None = None,
    tokenizer: tiktoken.Encoding | None = None,
) -> list[Generation]:
    """Continue all prompts in one batch. `seeds` has one number per prompt; `on_token` gets (prompt index, step).

    A TransformerLM is packed in every call; pass a DecodingModel to pack it only once. Dropout is off, whatever mode
    the model is in. `tokenizer` is by default the encoding of the model's vocabulary. Raises InvalidInputError for
    values out of range, CheckpointError when the model's logits are not finite.
    """
    settings = settings or GenerationSettings()
    if seeds is not None and len(seeds) != len(prompts):
        raise InvalidInputError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one seed for each prompt")
    packed = model if isinstance(model, DecodingModel) else DecodingModel(model)
    if settings.policy is not None:
        require_same_vocabulary(settings.policy, packed.vocabulary)
    continuations = [
        Continuation(
            prompt,
            settings,
            vocab_size=packed.config.vocab_size,
            gates_trained=packed.gates_trained,
            backend=packed.effective_backend,
            tokenizer=tokenizer or packed.vocabulary.encoding,
            seed=None if seeds is None else seeds[index],
        )
        for index, prompt in enumerate(prompts)
    ]
    index_by_id = {id(continuation): index for index, continuation in enumerate(continuations)}
    callback = None if on_token is None else lambda continuation, step: on_token(index_by_id[id(continuation)], step)
    engine = new_engine(packed, slots=len(continuations))
    engine.join(continuations)
    while engine.active:
        if cancelled is not None and cancelled():
            break
        engine.step(callback)
    for continuation in continuations:
        continuation.end(FinishReason.CANCELLED)
        if continuation.error is not None:
            raise continuation.error
    return [continuation.result for continuation in continuations]
