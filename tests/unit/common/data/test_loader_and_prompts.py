"""The loader yields each chunk of tokens once per epoch and resumes exactly; prompt pools share no prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import DataConfig
from common.data import ChunkLoader, Corpus, PromptPool, document_prompts, gpt2_vocabulary, open_corpus
from common.errors import DataError


def stream(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.arange(n, dtype=np.uint16)


@settings(max_examples=50, deadline=None)
@given(tokens=st.integers(2, 400), context=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 5))
def test_an_epoch_sees_every_chunk_once_and_targets_are_shifted(
    tokens: int, context: int, batch: int, seed: int
) -> None:
    loader = ChunkLoader(stream(tokens), context_length=context, batch_size=batch, seed=seed)
    starts = []
    for _ in range(-(-loader.num_chunks // loader.batch_size)):
        inputs, targets = loader.next_batch()
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs + 1, targets)
        assert inputs.shape[1] == loader.length == min(context, tokens - 1)
        starts += inputs[:, 0].tolist()
    step = loader.length + 1
    assert sorted(starts) == list(range(0, tokens - step + 1, step))
    assert loader.epoch == 0 and loader.num_chunks == len(starts)


def test_epochs_differ_and_the_seed_fixes_them() -> None:
    def order(seed: int) -> list[list[int]]:
        loader = ChunkLoader(stream(600), context_length=9, batch_size=60, seed=seed)
        return [loader.next_batch()[0][:, 0].tolist() for _ in range(3)]

    assert order(1) == order(1) != order(2)
    assert len({tuple(epoch) for epoch in order(1)}) == 3
    plain = ChunkLoader(stream(600), context_length=9, batch_size=60, shuffle=False)
    assert plain.next_batch()[0][:, 0].tolist() == list(range(0, 600, 10))


@settings(max_examples=30, deadline=None)
@given(taken=st.integers(0, 40), batch=st.integers(1, 7))
def test_a_resumed_loader_continues_with_the_next_chunk(taken: int, batch: int) -> None:
    first = ChunkLoader(stream(300), context_length=9, batch_size=batch, seed=3)
    for _ in range(taken):
        first.next_batch()
    second = ChunkLoader(stream(300), context_length=9, batch_size=batch, seed=3)
    second.load_state_dict(first.state_dict())
    for _ in range(12):
        assert torch.equal(first.next_batch()[0], second.next_batch()[0])
    assert first.state_dict() == second.state_dict()


def test_a_position_in_other_data_is_refused() -> None:
    state = ChunkLoader(stream(300), context_length=9, batch_size=2).state_dict()
    with pytest.raises(DataError, match="num_chunks 30 became 20"):
        ChunkLoader(stream(200), context_length=9, batch_size=2).load_state_dict(state)


def test_a_validation_pass_leaves_the_state_alone() -> None:
    loader = ChunkLoader(stream(105), context_length=9, batch_size=4)
    passes = [[inputs[:, 0].tolist() for inputs, _ in loader.batches()] for _ in range(2)]
    assert passes[0] == passes[1] == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90]]
    assert loader.position == 0


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_stream_without_a_single_pair_is_an_error_with_the_number(tokens: int) -> None:
    with pytest.raises(DataError, match=f"the corpus has only {tokens} tokens"):
        ChunkLoader(stream(tokens), context_length=8, batch_size=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    config = DataConfig(source="builtin:stories", max_documents=2000)
    return open_corpus(config, data_dir=tmp_path_factory.mktemp("stories"))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_prompts_are_different_beginnings_of_documents(corpus: Corpus) -> None:
    prompts = document_prompts(corpus, "train", 300, 3, 10, generator(0))
    assert len({tuple(prompt) for prompt in prompts}) == 300
    assert {len(prompt) for prompt in prompts} == set(range(3, 11))
    tokens = np.asarray(corpus.train)
    beginnings = {
        tuple(tokens[start : start + n].tolist()) for start in corpus.documents("train") for n in range(3, 11)
    }
    assert all(tuple(prompt) in beginnings for prompt in prompts)
    assert prompts == document_prompts(corpus, "train", 300, 3, 10, generator(0))
    assert prompts != document_prompts(corpus, "train", 300, 3, 10, generator(1))


def test_pools_never_share_a_prompt_even_across_splits_and_seeds(corpus: Corpus) -> None:
    pools = {
        PromptPool.TRAINING: document_prompts(corpus, "train", 1000, 3, 6, generator(0), pool=PromptPool.TRAINING),
        PromptPool.EVALUATION: document_prompts(
            corpus, "validation", 50, 3, 6, generator(1), pool=PromptPool.EVALUATION
        ),
        PromptPool.ABLATION: document_prompts(corpus, "validation", 50, 3, 6, generator(2), pool=PromptPool.ABLATION),
    }
    sets = [{tuple(prompt) for prompt in prompts} for prompts in pools.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def _corpus(tmp_path: Path, text: str) -> Corpus:
    (tmp_path / "c.txt").write_text(text)
    return open_corpus(DataConfig(source="c.txt"), data_dir=tmp_path)


def test_a_tiny_corpus_gives_prompts_for_every_pool(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, " ".join(f"The cat saw {n} birds and {n * 7} mice in the tree." for n in range(60)))
    for pool in PromptPool:
        prompts = document_prompts(corpus, "validation", 20, 3, 10, generator(0), pool=pool)
        assert len(prompts) == 20
        assert all(3 <= len(prompt) <= 10 and gpt2_vocabulary().end_of_text_id not in prompt for prompt in prompts)


def test_a_prompt_never_runs_into_the_next_document(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, "<|endoftext|>".join(["A cat sat down here."] + [f"Go {n}" for n in range(50)]))
    for prompt in document_prompts(corpus, "train", 30, 2, 10, generator(0)):
        assert gpt2_vocabulary().end_of_text_id not in prompt and len(prompt) >= 2


def test_prompts_longer_than_any_document_are_an_error_with_the_numbers(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, "<|endoftext|>".join(f"Go {n}" for n in range(30)))
    with pytest.raises(DataError, match=r"no prompt of 50 to 60 tokens in the train split \(\d+ documents"):
        document_prompts(corpus, "train", 3, 50, 60, generator(0))
