"""Observations equal the original's numbers, and running counts equal counts over the whole sequence."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from common.controller import TokenHistory, build_observation, build_observations, pad
from tests.paths import PARITY

REFERENCE = json.loads((PARITY / "reference.json").read_text(encoding="utf-8"))
EDGES = json.loads((PARITY / "edge_cases.json").read_text(encoding="utf-8"))
TENSORS = load_file(PARITY / "reference.safetensors")


@pytest.mark.parametrize("case", REFERENCE["observations"], ids=lambda case: f"{case['tokens']}-tokens")
def test_observation_equals_the_original(case: dict[str, object]) -> None:
    row, count = int(str(case["row"])), int(str(case["tokens"]))
    tokens = REFERENCE["input_ids"][row][:count]
    logits, hidden = TENSORS["logits_plain"][row, count - 1], TENSORS["hidden_plain"][row, count - 1]
    expected = torch.tensor(case["observation"])
    got = build_observation(tokens, logits, hidden, step=7, episode_length=50, previous_action=0.42)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    batched = build_observations(
        TokenHistory.of([tokens], vocab_size=331),
        logits[None],
        hidden[None],
        step=torch.tensor([7]),
        episode_length=50,
        previous_action=torch.tensor([[0.42]]),
    )
    torch.testing.assert_close(batched[0], expected, atol=1e-4, rtol=0)


def test_a_sequence_beyond_the_context_counts_whole() -> None:
    case = EDGES["observation_long"]
    got = build_observation(
        case["sequence"],
        TENSORS["observation_long_logits"],
        TENSORS["observation_long_hidden"],
        step=case["step"],
        episode_length=case["episode_length"],
        previous_action=case["previous_action"],
    )
    torch.testing.assert_close(got, torch.tensor(case["observation"]), atol=1e-4, rtol=0)


sequences = st.lists(st.lists(st.integers(0, 5), max_size=25), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(sequences, st.integers(0, 25))
def test_running_counts_equal_counting_from_the_start(rows: list[list[int]], prompt_length: int) -> None:
    """Of each row, some tokens arrive as the prompt and the remaining tokens one by one.

    The rows end at different times.
    """
    prompts = [row[:prompt_length] for row in rows]
    history = TokenHistory.of(prompts, vocab_size=6, extra_capacity=25)
    for step in range(25):
        tails = [row[prompt_length:] for row in rows]
        active = torch.tensor([step < len(tail) for tail in tails])
        token = torch.tensor([tail[step] if step < len(tail) else 3 for tail in tails])
        history.append(token, active)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(len(rows), 6, generator=generator)
    hidden = torch.randn(len(rows), 53, generator=generator)
    step = torch.arange(len(rows))
    previous = torch.rand(len(rows), generator=generator)
    batched = build_observations(history, logits, hidden, step=step, episode_length=9, previous_action=previous)
    for i, row in enumerate(rows):
        single = build_observation(
            row, logits[i], hidden[i], step=i, episode_length=9, previous_action=float(previous[i])
        )
        torch.testing.assert_close(batched[i], single, atol=1e-6, rtol=0)
        assert history.tokens[i, : len(row)].tolist() == row
        assert history.seen[i].nonzero().flatten().tolist() == sorted(set(row))


def test_reset_replaces_only_the_chosen_rows() -> None:
    history = TokenHistory.of([[1, 2, 1, 2], [3, 3]], vocab_size=6, extra_capacity=4)
    prompts, lengths = pad([[5, 5, 5], [4, 0, 4]])
    history.reset(prompts, lengths, torch.tensor([False, True]))
    assert history.length.tolist() == [4, 3]
    assert history.unique.tolist() == [2, 2]
    assert history.bigrams.tolist() == [2, 2]
    assert history.trigrams.tolist() == [2, 1]
    assert history.recent(3).tolist() == [[2, 1, 2], [4, 0, 4]]
    assert history.seen[1].tolist() == [True, False, False, False, True, False]


def test_recent_marks_what_lies_before_the_start() -> None:
    assert TokenHistory.of([[7], []], vocab_size=9).recent(3).tolist() == [[-1, -1, 7], [-1, -1, -1]]


def test_a_prompt_longer_than_the_history_is_refused() -> None:
    history = TokenHistory(1, 2, 6)
    with pytest.raises(ValueError, match="exceed"):
        history.reset(*pad([[1, 2, 3]]))


@pytest.mark.parametrize(("width", "size"), [(16, 0), (24, 1), (53, 2)])
def test_chunks_of_narrow_models(width: int, size: int) -> None:
    """The hidden state is split into 24 chunks of equal size.

    Chunks are zeros if the state has fewer than 24 values. A chunk of one value has the deviation 0. Values after the
    last chunk are not used.
    """
    hidden = torch.arange(width, dtype=torch.float32)
    got = build_observation([1], torch.zeros(5), hidden, step=0, episode_length=1)
    means = [sum(range(i * size, (i + 1) * size)) / size if size else 0.0 for i in range(24)]
    deviation = 0.5**0.5 if size == 2 else 0.0
    torch.testing.assert_close(got[10:34], torch.tensor(means))
    torch.testing.assert_close(got[34:58], torch.full((24,), deviation))


def test_the_empty_sequence_has_the_documented_values() -> None:
    got = build_observation([], torch.zeros(4), torch.zeros(48), step=0, episode_length=0)
    assert got[:10].tolist() == pytest.approx([0, torch.log(torch.tensor(4.0)).item() / 10, 1, 1, 1, 0, 0, 0, 0, 0])
    assert got[58:61].tolist() == [0, 1, 0]
