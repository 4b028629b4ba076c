"""Artifacts: the files of experiments, by reference. No torch."""

from common.artifacts.store import ALIASES, ArtifactFile, ArtifactStore, CheckpointFile, split_reference

__all__ = ["ALIASES", "ArtifactFile", "ArtifactStore", "CheckpointFile", "split_reference"]
