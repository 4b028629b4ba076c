"""Turns text into batches: vocabulary, corpora, token cache, chunks for training, prompts for generation.

The package works without a network: GPT-2's files come with a Python package, and a program generates
`builtin:stories`.
"""

from common.data.corpus import Corpus, CorpusPart, open_corpus
from common.data.loader import BatchLoader, ChunkLoader, CorpusLoader
from common.data.places import require_inside, resolve_local_files
from common.data.prompts import PromptPool, document_prompts
from common.data.text_bytes import text_bytes
from common.data.vocabulary import (
    VOCABULARY_FILE,
    Vocabulary,
    VocabularyLabel,
    gpt2_vocabulary,
    load_tokenizer,
    read_vocabulary,
)
from common.datasets.reading import END_OF_TEXT

__all__ = [
    "END_OF_TEXT",
    "VOCABULARY_FILE",
    "BatchLoader",
    "ChunkLoader",
    "Corpus",
    "CorpusLoader",
    "CorpusPart",
    "PromptPool",
    "Vocabulary",
    "VocabularyLabel",
    "document_prompts",
    "gpt2_vocabulary",
    "load_tokenizer",
    "open_corpus",
    "read_vocabulary",
    "require_inside",
    "resolve_local_files",
    "text_bytes",
]
