"""The logits of the sliding context window always equal those of a new forward pass over its tokens."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.generation import DecodingModel
from common.generation.window import Window
from common.model import ModelConfig, TransformerLM

torch.set_num_threads(1)
VOCABULARY = 13


def model(context_length: int) -> TransformerLM:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY, d_model=8, num_layers=2, num_heads=2, ffn_dim=8, context_length=context_length
    )
    return TransformerLM(config).eval()


def window_of(lm: TransformerLM, prompts: list[list[int]]) -> Window:
    window = Window(DecodingModel(lm))
    window.join(prompts)
    return window


def append(window: Window, tokens: list[int]) -> None:
    window.append(torch.tensor(tokens), tokens, None)


tokens = st.integers(0, VOCABULARY - 1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 9),
    st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=3),
    st.lists(tokens, max_size=25),
)
def test_logits_are_those_of_the_last_tokens(context: int, prompts: list[list[int]], more: list[int]) -> None:
    lm = model(context)
    window = window_of(lm, prompts)
    sequences = [list(prompt) for prompt in prompts]
    for token in [None, *more]:
        if token is not None:
            append(window, [token] * len(prompts))
            for sequence in sequences:
                sequence.append(token)
        for slot, sequence in enumerate(sequences):
            in_window = sequence[window.truncated[slot] :]
            assert 1 <= len(in_window) <= context
            with torch.no_grad():
                expected = lm.hidden_states(torch.tensor([in_window]))[0, -1]
            torch.testing.assert_close(window.hidden[slot], expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(window.logits[slot], lm.project(expected), atol=1e-5, rtol=0)


def test_half_of_a_full_window_goes_at_once() -> None:
    """With a context window of 8, the ninth token drops the oldest four, and so does every fourth token after it."""
    window = window_of(model(8), [[1, 2, 3]])
    counts = []
    for _ in range(11):
        append(window, [5])
        counts.append(window.truncated[0])
    assert counts == [0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.lists(tokens, min_size=1, max_size=9), st.integers(0, 5)), max_size=16))
def test_slots_that_join_and_leave_do_not_change_others(changes: list[list[int] | int]) -> None:
    """A list in `changes` is a prompt that joins; a number is a slot that is removed if it is occupied.

    A token is decoded after each change.
    """
    lm = model(6)
    window = Window(DecodingModel(lm))
    sequences: list[list[int]] = []
    for time, change in enumerate(changes):
        if isinstance(change, list):
            window.join([change])
            sequences.append(list(change))
        elif change < len(sequences):
            window.remove(change)
            sequences[change] = sequences[-1]
            sequences.pop()
        if not sequences:
            continue
        added = [(time + slot) % VOCABULARY for slot in range(len(sequences))]
        append(window, added)
        for slot, sequence in enumerate(sequences):
            sequence.append(added[slot])
            with torch.no_grad():
                expected = lm(torch.tensor([sequence[window.truncated[slot] :]]))[0, -1]
            torch.testing.assert_close(window.logits[slot], expected, atol=1e-5, rtol=0)
