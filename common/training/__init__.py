"""Language model training: the interface to its surroundings, the training loop, optimiser, schedule and evaluation.

The package exports only the names that do not need torch; import the others from their module
(`common.training.pretrain`).
"""

from common.training.hooks import NullHooks, Outcome, SavedCheckpoint, StopRequest, TrainingHooks, outcome_of

__all__ = ["NullHooks", "Outcome", "SavedCheckpoint", "StopRequest", "TrainingHooks", "outcome_of"]
