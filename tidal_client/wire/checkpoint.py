"""Checkpoints: files and folders that a model or a controller can be loaded from."""

from __future__ import annotations

from .base import Reply, UtcTime


class CheckpointReply(Reply):
    """A file or checkpoint folder of an experiment."""

    name: str
    """Path below the experiment's folder."""
    reference: str
    """`<experiment id>/<name>`: what `checkpoint` of a request takes."""
    kind: str
    """training (resumable), model, policy, result, other."""
    step: int | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    created_at: UtcTime
    usable_as_base: bool = False
    """A language model that rl-training and generation can load."""
    usable_as_policy: bool = False
    """A controller that generation can load."""
    best: bool = False
    """The best its training measured so far: lowest validation loss, or highest evaluation reward."""
    download: str
    """Where to get it."""


class CheckpointList(Reply):
    """Checkpoints of one experiment, newest first."""

    experiment_id: str
    checkpoints: list[CheckpointReply]


class CheckpointGroup(Reply):
    """The checkpoints of one experiment in the list of all."""

    experiment_id: str
    type: str
    name: str | None = None
    created_at: UtcTime
    checkpoints: list[CheckpointReply]


class CheckpointOverview(Reply):
    """All checkpoints, grouped by experiment, newest experiment first."""

    experiments: list[CheckpointGroup]
    next_cursor: str | None = None
