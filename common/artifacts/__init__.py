"""Artifacts: the files of experiments, by reference. No torch."""

from common.artifacts.sizes import size_of
from common.artifacts.store import ALIASES, ArtifactFile, ArtifactStore, CheckpointFile, split_reference

__all__ = ["ALIASES", "ArtifactFile", "ArtifactStore", "CheckpointFile", "size_of", "split_reference"]
