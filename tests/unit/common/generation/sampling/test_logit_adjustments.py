"""Presence penalty, frequency penalty and logit bias agree with OpenAI's formula in Python."""

from __future__ import annotations

from collections import Counter

import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.errors import InvalidInputError
from common.generation import DecodingModel, GenerationSettings, generate_batch
from common.generation.sampling.logit_adjustments import LogitAdjustments
from tests.unit.common.generation.conftest import tiny_model

torch.set_num_threads(1)
VOCABULARY = 5

adjusted_settings = st.builds(
    GenerationSettings,
    presence_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25]),
    logit_bias=st.sampled_from([(), ((3, -100.0), (0, 7.5))]),
)


def expected(settings: GenerationSettings, generated: list[int]) -> list[float]:
    counts = Counter(generated)
    bias = dict(settings.logit_bias)
    return [
        bias.get(token, 0.0)
        - settings.presence_penalty * (counts[token] > 0)
        - settings.frequency_penalty * counts[token]
        for token in range(VOCABULARY)
    ]


@hypothesis_settings(deadline=None, max_examples=80)
@given(st.lists(st.one_of(adjusted_settings, st.integers(0, 5)), max_size=20))
def test_slots_keep_their_own_adjustments_while_others_join_and_leave(changes: list[GenerationSettings | int]) -> None:
    """An element of `changes` is either the settings of a sequence that joins, or the number of a slot to remove.

    After each change, a token is appended to the sequence of every slot.
    """
    adjustments = LogitAdjustments(VOCABULARY)
    slots: list[tuple[GenerationSettings, list[int]]] = []
    for time, change in enumerate(changes):
        if isinstance(change, GenerationSettings):
            adjustments.join(len(slots), change)
            slots.append((change, []))
        elif change < len(slots):
            adjustments.remove(change, len(slots) - 1)
            slots[change] = slots[-1]
            slots.pop()
        logits = torch.zeros(len(slots), VOCABULARY)
        adjustments.apply(logits)
        expected_logits = torch.tensor([expected(*slot) for slot in slots]).reshape(len(slots), VOCABULARY)
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
        tokens = [(time * 3 + slot) % VOCABULARY for slot in range(len(slots))]
        adjustments.append(torch.tensor(tokens, dtype=torch.int64))
        for (_, generated), token in zip(slots, tokens, strict=True):
            generated.append(token)


def test_a_bias_of_minus_100_bans_a_token_and_of_100_forces_it(tokenizer: tiktoken.Encoding) -> None:
    model = DecodingModel(tiny_model())
    free = generate_batch(model, ["ab"], GenerationSettings(max_tokens=12, top_k=1), seeds=[1], tokenizer=tokenizer)[0]
    banned = GenerationSettings(max_tokens=12, top_k=1, logit_bias=((free.token_ids[0], -100.0),))
    forced = GenerationSettings(max_tokens=3, temperature=1.0, logit_bias=((ord("x"), 100.0),), repetition_penalty=1.0)
    [without] = generate_batch(model, ["ab"], banned, seeds=[1], tokenizer=tokenizer)
    assert free.token_ids[0] not in without.token_ids
    assert generate_batch(model, ["ab"], forced, seeds=[1], tokenizer=tokenizer)[0].text == "xxx"


def test_the_scored_distribution_holds_the_penalties_and_the_prompt_does_not_count(
    tokenizer: tiktoken.Encoding,
) -> None:
    """The penalties of the second token count only the first token, and not the prompt."""
    made = tiny_model()
    settings = GenerationSettings(
        max_tokens=2, top_k=1, temperature=0.5, repetition_penalty=1.0, presence_penalty=0.7, frequency_penalty=0.4
    )
    result = generate_batch(made, [[5, 6, 5]], settings, seeds=[1], tokenizer=tokenizer)[0]
    first, second = result.token_ids
    with torch.no_grad():
        logits = made(torch.tensor([[5, 6, 5, first]]))[0, -1]
    logits[first] -= 0.7 + 0.4
    log_probs = (logits / 0.5).log_softmax(0)
    assert second == int(log_probs.argmax())
    assert result.trajectory[1].log_prob == pytest.approx(log_probs[second].item(), abs=1e-4)
    assert (result.effective.presence_penalty, result.effective.frequency_penalty) == (0.7, 0.4)


def test_a_token_the_model_does_not_know_is_named(tokenizer: tiktoken.Encoding) -> None:
    with pytest.raises(InvalidInputError, match="logit_bias names token 257"):
        generate_batch(tiny_model(), ["a"], GenerationSettings(logit_bias=((257, 1.0),)), tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match="finite"):
        GenerationSettings(presence_penalty=float("nan"))
