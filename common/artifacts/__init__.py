"""Finds, reads and writes the files of experiments. The package does not import torch."""

from common.artifacts.store import ALIASES, ArtifactFile, ArtifactStore, CheckpointFile, split_reference

__all__ = ["ALIASES", "ArtifactFile", "ArtifactStore", "CheckpointFile", "split_reference"]
