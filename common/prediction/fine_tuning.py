"""Finds out before a training begins whether it will be a fine-tuning; `common.training.starting_point` decides it."""

from __future__ import annotations

from common.config.lm import LMConfig
from tidal_client.vocabulary import CheckpointMode


def fine_tunes(mode: CheckpointMode, config: LMConfig, trained: LMConfig | None, *, has_state: bool) -> bool:
    """Return whether a training from a checkpoint will start from its weights with a new optimiser.

    `trained` is the configuration with which the checkpoint was trained, if it is known; `has_state` is false for a
    file of weights. In the mode auto, the trainer compares the texts themselves; here only the names of the corpora are
    compared.
    """
    if mode is CheckpointMode.CONTINUE:
        return False
    if mode is CheckpointMode.FINE_TUNE or not has_state:
        return True
    return trained is not None and not trained.data.names_same_text(config.data)
