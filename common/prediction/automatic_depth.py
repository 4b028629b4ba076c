"""Resolves `model.depth: auto`: chooses the depth of a model from the size of its training text.

This happens when a job is submitted or a local training begins, so the stored configuration contains the chosen depth.
"""

from __future__ import annotations

from pathlib import Path

from common.config.depth import AUTO, depth_of_text, regularisation
from common.config.lm import LMConfig
from common.errors import ConfigError
from common.prediction.corpus_size import find_training_bytes


def resolve_depth(config: LMConfig, data_dir: Path, *, location: str = "model.depth") -> LMConfig:
    """Return the configuration with a number in place of `model.depth: auto`, and all fields that follow from it.

    Fields that were set when `config` was built keep their values. Raises ConfigError, with the finding at `location`,
    if the size of the text is unknown.
    """
    if config.model.depth != AUTO:
        return config
    size = find_training_bytes(config.data, data_dir)
    if size is None:
        names = ", ".join(repr(corpus.source) for corpus in config.data.corpora())
        several = len(config.data.corpora()) > 1
        text = f"the texts {names} is known only after each" if several else f"the text {names} is known only after it"
        message = f"the size of {text} has been read once; run a dataset job for it first, or set a number"
        raise ConfigError(
            f"{location}: auto cannot be resolved: {message}", errors=[{"location": location, "message": message}]
        )
    depth = depth_of_text(size)
    values = config.model_dump(exclude_unset=True)
    dropout, decay = regularisation(depth, size)
    values["model"] = {"dropout": dropout, **values["model"], "depth": depth}
    values["training"] = {"weight_decay": decay, **values.get("training", {})}
    return LMConfig.model_validate(values)
