"""Turns text into batches: tokeniser, corpora, token cache, chunks for training, prompts for generation.

The package works without a network: the tokeniser's files come with a Python package, and a program generates
`builtin:stories`.
"""

from common.data.corpus import Corpus, CorpusPart, open_corpus
from common.data.loader import BatchLoader, ChunkLoader, CorpusLoader
from common.data.places import require_inside, resolve_local_files
from common.data.prompts import PromptPool, document_prompts
from common.data.text_bytes import text_bytes, token_byte_lengths
from common.data.tokenizer import END_OF_TEXT_ID, load_tokenizer
from common.datasets.reading import END_OF_TEXT

__all__ = [
    "END_OF_TEXT",
    "END_OF_TEXT_ID",
    "BatchLoader",
    "ChunkLoader",
    "Corpus",
    "CorpusLoader",
    "CorpusPart",
    "PromptPool",
    "document_prompts",
    "load_tokenizer",
    "open_corpus",
    "require_inside",
    "resolve_local_files",
    "text_bytes",
    "token_byte_lengths",
]
