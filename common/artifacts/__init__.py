"""Finds, reads and writes the files of experiments. The package does not import torch."""

from common.artifacts.store import ALIASES, ArtifactFile, ArtifactStore, CheckpointFile, split_reference
from common.artifacts.vocabulary import (
    VocabularyDescription,
    VocabularyFacts,
    checkpoint_vocabulary,
    vocabulary_facts,
)

__all__ = [
    "ALIASES",
    "ArtifactFile",
    "ArtifactStore",
    "CheckpointFile",
    "VocabularyDescription",
    "VocabularyFacts",
    "checkpoint_vocabulary",
    "split_reference",
    "vocabulary_facts",
]
