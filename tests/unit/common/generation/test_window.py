"""The sliding window: whatever has slid away, its logits are those of a fresh forward pass over what it holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.generation import SlidingWindow
from common.model import ModelConfig, TransformerLM

torch.set_num_threads(1)
VOCABULARY = 13


def model(context_length: int) -> TransformerLM:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY, d_model=8, num_layers=2, num_heads=2, ffn_dim=8, context_length=context_length
    )
    return TransformerLM(config).eval()


tokens = st.integers(0, VOCABULARY - 1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 9),
    st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=3),
    st.lists(tokens, max_size=25),
)
def test_logits_are_those_of_the_last_tokens(context: int, prompts: list[list[int]], more: list[int]) -> None:
    made = model(context)
    window = SlidingWindow(made, len(prompts))
    sequences = [list(prompt) for prompt in prompts]
    logits, hidden = window.begin(prompts)
    for token in [None, *more]:
        if token is not None:
            logits, hidden = window.append([token] * len(prompts), None)
            for sequence in sequences:
                sequence.append(token)
        for row, sequence in enumerate(sequences):
            held = sequence[window.truncated[row] :]
            assert 1 <= len(held) <= context
            with torch.no_grad():
                expected = made.hidden_states(torch.tensor([held]))[0, -1]
            torch.testing.assert_close(hidden[row], expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(logits[row], made.project(expected), atol=1e-5, rtol=0)


def test_half_of_a_full_window_goes_at_once() -> None:
    """Context 8: the ninth token drops four, and so does every fourth one after it."""
    window = SlidingWindow(model(8), 1)
    window.begin([[1, 2, 3]])
    counts = []
    for _ in range(11):
        window.append([5], None)
        counts.append(window.truncated[0])
    assert counts == [0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_an_ended_row_does_not_disturb_the_others() -> None:
    made = model(6)
    both, alone = SlidingWindow(made, 2), SlidingWindow(made, 1)
    both.begin([[1, 2], [3, 4, 5]])
    alone.begin([[3, 4, 5]])
    both.end(0)
    for token in range(12):
        logits, _ = both.append([7, token], None)
        expected, _ = alone.append([token], None)
        torch.testing.assert_close(logits[1:], expected, atol=1e-5, rtol=0)
    assert both.truncated[1] == alone.truncated[0] > 0
