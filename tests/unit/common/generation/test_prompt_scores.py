"""The log-probabilities that the engine returns for a prompt equal those from the logits of `TransformerLM`."""

from __future__ import annotations

import pytest
import tiktoken
import torch

from common.generation import Continuation, DecodingEngine, DecodingModel, GenerationSettings, generate_batch
from common.generation.prompt_scores import POSITIONS_AT_ONCE
from common.model import TransformerLM
from tests.unit.common.generation.conftest import tiny_model

torch.set_num_threads(1)


def expected(model: TransformerLM, tokens: list[int]) -> torch.Tensor:
    """Return the model's log-probabilities (T − 1, V) of each token except the first."""
    with torch.no_grad():
        return model(torch.tensor([tokens]))[0, :-1].log_softmax(1)


def test_every_token_but_the_first_has_its_log_probability(tokenizer: tiktoken.Encoding) -> None:
    """The prompt is longer than `POSITIONS_AT_ONCE`. The temperature does not change the scores."""
    model = tiny_model(context_length=3 * POSITIONS_AT_ONCE)
    prompt = [(number * 7) % 256 for number in range(2 * POSITIONS_AT_ONCE + 5)]
    settings = GenerationSettings(max_tokens=3, score_prompt=True, top_log_probs=2, temperature=0.3)
    packed = DecodingModel(model)
    [short, long] = generate_batch(packed, [[9, 8], prompt], settings, seeds=[1, 2], tokenizer=tokenizer)
    unscored = GenerationSettings(max_tokens=3, temperature=0.3)
    plain = generate_batch(packed, [prompt], unscored, seeds=[2], tokenizer=tokenizer)
    for result, tokens in ((short, [9, 8]), (long, prompt)):
        scores = result.prompt_scores
        assert scores is not None
        assert [score.token_id for score in scores] == tokens
        assert (scores[0].log_prob, scores[0].alternatives) == (None, [])
        log_probs = expected(model, tokens)
        for score, row in zip(scores[1:], log_probs, strict=True):
            assert score.log_prob == pytest.approx(row[score.token_id].item(), abs=1e-4)
            best = row.topk(2)
            assert [token for token, _ in score.alternatives] == best.indices.tolist()
            assert [value for _, value in score.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert long.token_ids == plain[0].token_ids
    assert plain[0].prompt_scores is None


def test_tokens_outside_the_window_have_none(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(context_length=8)
    prompt = list(range(40, 60))
    settings = GenerationSettings(max_tokens=1, score_prompt=True)
    [result] = generate_batch(model, [prompt], settings, seeds=[1], tokenizer=tokenizer)
    assert result.prompt_scores is not None
    assert [score.token_id for score in result.prompt_scores] == prompt
    assert [score.log_prob for score in result.prompt_scores[:14]] == [None] * 14
    found = [score.log_prob for score in result.prompt_scores[14:]]
    rows = zip(expected(model, prompt[13:]), prompt[14:], strict=True)
    assert found == pytest.approx([row[token].item() for row, token in rows], abs=1e-4)
    assert result.truncated == 13


def test_equal_prompts_that_join_together_get_as_many_alternatives_as_each_requests(
    tokenizer: tiktoken.Encoding,
) -> None:
    model = DecodingModel(tiny_model())
    continuations = [
        Continuation(
            [5, 6, 7],
            GenerationSettings(max_tokens=1, score_prompt=True, top_log_probs=count),
            vocab_size=model.config.vocab_size,
            gates_trained=False,
            tokenizer=tokenizer,
        )
        for count in (1, 3, 0)
    ]
    DecodingEngine(model).join(continuations)
    found = [
        [score.alternatives for score in continuation.result.prompt_scores or []] for continuation in continuations
    ]
    counts = [[len(alternatives) for alternatives in of_prompt] for of_prompt in found]
    assert counts == [[0, 1, 1], [0, 3, 3], [0, 0, 0]]
    assert found[0][1] == found[1][1][:1]


@pytest.mark.parametrize("prompt", [[], [5], [5, 6, 7]])
def test_a_prompt_can_be_read_without_a_continuation(tokenizer: tiktoken.Encoding, prompt: list[int]) -> None:
    settings = GenerationSettings(max_tokens=0, score_prompt=True)
    [result] = generate_batch(tiny_model(), [prompt], settings, seeds=[1], tokenizer=tokenizer)
    assert (result.text, result.token_ids, result.finish_reason) == ("", [], "length")
    assert [score.token_id for score in result.prompt_scores or []] == prompt
