"""Measure the bytes of text per second that a model writes, with a vocabulary of its own and with GPT-2's.

Both models have the same layers (`model.depth` DEPTH, reference architecture) and random weights; the vocabularies
differ. The bytes per token come from the text that TEXT names (environment variable; default: the built-in stories):
`train:4096` is trained on it, and both vocabularies are counted on its training part. Measurements of the two models
alternate in one process, on all cores or TIDAL_GENERATOR_THREADS threads. `bench.recipes --until speed` measures the
speed of training in the same way.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import torch

from bench.generation import alternate, generate_tokens
from bench.report import Row, main
from common.config import load_lm_config
from common.config.data import DataConfig
from common.generation import DecodingModel
from common.model import TransformerLM
from common.training.hooks import NullHooks
from common.training.loading import load_corpus

DEPTH = 3
CONTEXT = 256
ENTRIES = 4096
PROMPT_TOKENS = 12
BOUND = 1.5


def run(quick: bool) -> list[Row]:
    """Measure a batch of one and one of 16, with fewer tokens and rounds when `quick`."""
    threads = os.environ.get("TIDAL_GENERATOR_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    source = os.environ.get("TEXT")
    source = str(Path(source).resolve()) if source else "builtin:stories"
    new, rounds = (24, 3) if quick else (100, 9)
    own, own_bytes = _model_and_bytes_per_token(source, f"train:{ENTRIES}")
    other, other_bytes = _model_and_bytes_per_token(source, "gpt2")
    rows = []
    for batch in (1, 16):
        prompts = torch.randint(0, ENTRIES - 1, (batch, PROMPT_TOKENS)).tolist()
        ours, peer = alternate(
            rounds,
            partial(generate_tokens, own, prompts, new, ignore_end_of_text=True),
            partial(generate_tokens, other, prompts, new, ignore_end_of_text=True),
        )
        rows.append(
            Row(
                f"generation with a vocabulary of {ENTRIES:,} entries, batch {batch}",
                "bytes/s",
                ours * own_bytes,
                peer * other_bytes,
                "GPT-2's vocabulary, same layers",
                BOUND,
                "at least",
            )
        )
    return rows


def _model_and_bytes_per_token(source: str, tokenizer: str) -> tuple[DecodingModel, float]:
    """Return a model with random weights, and the mean number of bytes of its tokens in the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus(DataConfig(source=source, tokenizer=tokenizer), Path(folder), NullHooks())
        entries, bytes_per_token = corpus.vocabulary.size, corpus.train_bytes_per_token
    config = load_lm_config(None, {"model": {"depth": DEPTH, "context_length": CONTEXT, "vocab_size": entries}})
    model = TransformerLM(config.model).eval()
    with torch.no_grad():
        model.output_projection.weight.mul_(10)  # logits that vary like a trained model's
    return DecodingModel(model), bytes_per_token


if __name__ == "__main__":
    main(run, __doc__)
