"""Selects the prompts of episodes: one pool for training, one for evaluations and choices, one for the ablation's test.

Each prompt is the beginning of a document. The training set comes from training documents, the others from validation
documents. The prompt pools of `common.data` ensure that the three pools have no prompt in common.
"""

from __future__ import annotations

import torch

from common.config import RLConfig
from common.data import Corpus, PromptPool, document_prompts
from common.errors import DataError
from common.rl.statistics import NgramStatistics

Prompt = list[int]

TRAINING_PROMPTS = 8192
"""Largest number of training prompts."""
EVALUATION_PROMPTS = 32
"""Number of prompts of each evaluation during training."""


def training_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """Return the prompts of training episodes. They depend only on the corpus, `episode` and `seed`."""
    count = min(TRAINING_PROMPTS, max(len(corpus.documents("train")), config.ppo.num_envs))
    return _prompts(corpus, PromptPool.TRAINING, count, config, config.seed)


def evaluation_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """Return the prompts of the evaluations during training."""
    return _prompts(corpus, PromptPool.EVALUATION, EVALUATION_PROMPTS, config, config.seed)


def development_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """Return `ablation.development_prompts` prompts that neither training nor the test of the ablation uses."""
    return _prompts(corpus, PromptPool.EVALUATION, config.ablation.development_prompts, config, config.ablation.seed)


def ablation_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """Return `ablation.prompts` prompts that training has not used, repeated if the corpus has too few."""
    return _prompts(corpus, PromptPool.ABLATION, config.ablation.prompts, config, config.ablation.seed)


def ngram_statistics(corpus: Corpus, config: RLConfig, vocab_size: int) -> NgramStatistics:
    """Count n-grams in the first `episode.statistics_documents` training documents.

    If there are several corpora, each contributes its share of these documents.

    Raises DataError if the corpus contains token ids outside the model's vocabulary.
    """
    sequences = []
    for part in corpus.parts:
        tokens, starts = part.train.tokens, part.train.documents
        count = max(1, round(part.share * config.episode.statistics_documents))
        ends = [*starts[1 : count + 1].tolist(), len(tokens)]
        sequences += [tokens[start:end] for start, end in zip(starts[:count].tolist(), ends, strict=False)]
    try:
        return NgramStatistics.from_sequences(sequences, vocab_size)
    except ValueError as error:
        raise DataError(f"{corpus.description} does not fit the language model: {error}") from error


def _prompts(corpus: Corpus, pool: PromptPool, count: int, config: RLConfig, seed: int) -> list[Prompt]:
    episode = config.episode
    return document_prompts(
        corpus,
        "train" if pool is PromptPool.TRAINING else "validation",
        count,
        episode.prompt_min_tokens,
        episode.prompt_max_tokens,
        torch.Generator().manual_seed(seed),
        pool=pool,
    )
