"""Which prompts begin episodes: one set each for training, for evaluation on the way and for the ablation.

All are beginnings of documents. The pools of `common.data` keep the three disjoint as texts, in every run; besides,
training takes training documents, the other two validation documents. Leaves out: reading the corpus.
"""

from __future__ import annotations

import numpy as np
import torch

from common.config import RLConfig
from common.data import Corpus, PromptPool, document_prompts
from common.errors import DataError
from common.rl.statistics import NgramStatistics

Prompt = list[int]

TRAINING_PROMPTS = 8192
"""Most training prompts that are kept."""
EVALUATION_PROMPTS = 32


def training_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """What episodes of training begin with; follows from the corpus, `episode` and `seed`."""
    count = min(TRAINING_PROMPTS, max(len(corpus.documents("train")), config.ppo.num_envs))
    return _prompts(corpus, PromptPool.TRAINING, count, config, config.seed)


def evaluation_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """What the evaluation on the way uses."""
    return _prompts(corpus, PromptPool.EVALUATION, EVALUATION_PROMPTS, config, config.seed)


def ablation_prompts(corpus: Corpus, config: RLConfig) -> list[Prompt]:
    """`ablation.prompts` prompts that nothing in training has seen; repeated where the corpus has too few."""
    return _prompts(corpus, PromptPool.ABLATION, config.ablation.prompts, config, config.ablation.seed)


def ngram_statistics(corpus: Corpus, config: RLConfig, vocab_size: int) -> NgramStatistics:
    """Counts over the first `episode.statistics_documents` training documents.

    Raises DataError when the corpus holds tokens that the model does not know.
    """
    starts = np.asarray(corpus.documents("train"), dtype=np.int64)
    count = config.episode.statistics_documents
    ends = np.append(starts[1:], len(corpus.train))[:count]
    spans = zip(starts[:count].tolist(), ends.tolist(), strict=True)
    try:
        return NgramStatistics.from_sequences([corpus.train[a:b] for a, b in spans], vocab_size)
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
