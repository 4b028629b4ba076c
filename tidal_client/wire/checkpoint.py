"""Checkpoints: files and folders from which a model or a controller can be loaded."""

from __future__ import annotations

from .base import Reply, UtcTime
from .vocabulary import VocabularyReply


class CheckpointReply(Reply):
    """A file or checkpoint folder of an experiment."""

    name: str
    """Path relative to the folder of the experiment."""
    reference: str
    """`<experiment id>/<name>`, with which the field `checkpoint` of a request names this checkpoint."""
    kind: str
    """One of training (a job can resume from it), model, policy, result, other."""
    step: int | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    created_at: UtcTime
    usable_as_base: bool = False
    """Whether this is a language model that rl-training and generation can load."""
    usable_as_policy: bool = False
    """Whether this is a controller that generation can load."""
    best: bool = False
    """Whether this checkpoint is the best of its training so far: it has the lowest validation loss or the highest
    evaluation reward."""
    vocabulary: VocabularyReply | None = None
    """Vocabulary of a language model; null for a controller, and if the manifest of the checkpoint cannot be read."""
    download: str
    """URL path from which the checkpoint can be downloaded."""


class CheckpointList(Reply):
    """The checkpoints of one experiment, newest first."""

    experiment_id: str
    checkpoints: list[CheckpointReply]


class CheckpointGroup(Reply):
    """The checkpoints of one experiment, as an element of the list of all checkpoints."""

    experiment_id: str
    type: str
    name: str | None = None
    created_at: UtcTime
    checkpoints: list[CheckpointReply]


class CheckpointOverview(Reply):
    """A page of checkpoints, grouped by experiment; the newest experiment is first."""

    experiments: list[CheckpointGroup]
    next_cursor: str | None = None
