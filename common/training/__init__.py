"""Language model training: loop, optimiser, schedule, evaluation, and the interface to the program that runs it.

The package exports only the names that do not need torch; import the others from their modules, such as
`common.training.pretrain`.
"""

from common.training.hooks import NullHooks, Outcome, SavedCheckpoint, StopRequest, TrainingHooks, outcome_of

__all__ = ["NullHooks", "Outcome", "SavedCheckpoint", "StopRequest", "TrainingHooks", "outcome_of"]
