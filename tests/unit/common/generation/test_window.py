"""The sliding window: whatever has slid away, its logits are those of a fresh forward pass over what it holds."""

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


def window_of(made: TransformerLM, prompts: list[list[int]]) -> Window:
    window = Window(DecodingModel(made))
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
    made = model(context)
    window = window_of(made, prompts)
    sequences = [list(prompt) for prompt in prompts]
    for token in [None, *more]:
        if token is not None:
            append(window, [token] * len(prompts))
            for sequence in sequences:
                sequence.append(token)
        for row, sequence in enumerate(sequences):
            held = sequence[window.truncated[row] :]
            assert 1 <= len(held) <= context
            with torch.no_grad():
                expected = made.hidden_states(torch.tensor([held]))[0, -1]
            torch.testing.assert_close(window.hidden[row], expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(window.logits[row], made.project(expected), atol=1e-5, rtol=0)


def test_half_of_a_full_window_goes_at_once() -> None:
    """Context 8: the ninth token drops four, and so does every fourth one after it."""
    window = window_of(model(8), [[1, 2, 3]])
    counts = []
    for _ in range(11):
        append(window, [5])
        counts.append(window.truncated[0])
    assert counts == [0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.lists(tokens, min_size=1, max_size=9), st.integers(0, 5)), max_size=16))
def test_rows_that_come_and_go_do_not_disturb_the_others(happenings: list[list[int] | int]) -> None:
    """A list is a prompt that joins, a number the row that leaves; a token is decoded after each."""
    made = model(6)
    window = Window(DecodingModel(made))
    sequences: list[list[int]] = []
    for time, happening in enumerate(happenings):
        if isinstance(happening, list):
            window.join([happening])
            sequences.append(list(happening))
        elif happening < len(sequences):
            window.remove(happening)
            sequences[happening] = sequences[-1]
            sequences.pop()
        if not sequences:
            continue
        added = [(time + row) % VOCABULARY for row in range(len(sequences))]
        append(window, added)
        for row, sequence in enumerate(sequences):
            sequence.append(added[row])
            with torch.no_grad():
                expected = made(torch.tensor([sequence[window.truncated[row] :]]))[0, -1]
            torch.testing.assert_close(window.logits[row], expected, atol=1e-5, rtol=0)
