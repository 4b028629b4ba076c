"""Training: hooks (no torch), and with torch optimizer, lr_schedule, pretrain, evaluation.

This package exports only the torch-free part; import the rest from its module (`common.training.pretrain`).
"""

from common.training.hooks import NullHooks, Outcome, SavedCheckpoint, StopRequest, TrainingHooks, outcome_of

__all__ = ["NullHooks", "Outcome", "SavedCheckpoint", "StopRequest", "TrainingHooks", "outcome_of"]
