"""Builds the configuration of a pretraining that starts from a checkpoint: the model has the checkpoint's shape.

A depth that the request sets must be that of the checkpoint. A depth in a configuration file is replaced by the
checkpoint's number of layers, so that learning rate and batch belong to the model that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.depth import AUTO, whole_number
from common.config.lm import LMConfig
from common.config.loader import build, merge
from common.config.model import ModelConfig
from common.config.tokenizers import trained_size
from common.config.yaml_text import read_mapping
from common.errors import ConfigError


def load_from_checkpoint(
    path: str | Path | None, overrides: Mapping[str, Any], trained: LMConfig, *, name: str | None = None
) -> LMConfig:
    """Return the configuration in the file `path`, or the defaults, with the shape of the checkpoint and `overrides`.

    `trained` is the configuration with which the checkpoint was trained. `name` is as in `load_lm_config`. Raises
    ConfigError for the same reasons as `load_lm_config`, and if `overrides` set another depth.
    """
    requested = overrides.get("model")
    _check_depth(requested.get("depth") if isinstance(requested, Mapping) else None, trained.model)
    values = {} if path is None else read_mapping(Path(path), name=name)
    model = values.get("model")
    if isinstance(model, Mapping) and (model.get("depth") == AUTO or whole_number(model.get("depth")) is not None):
        values = {**values, "model": {**model, "depth": trained.model.num_layers}}
    where = "defaults" if path is None else name or str(path)
    return build(LMConfig, values, merge({"model": _shape(trained)}, overrides), where=where)


def _shape(trained: LMConfig) -> dict[str, object]:
    """Return the shape of the model. The size of a trained vocabulary is left out, because it follows from its name."""
    shape = trained.model.shape()
    if trained_size(trained.data.tokenizer) is not None:
        del shape["vocab_size"]
    return shape


def _check_depth(depth: object, model: ModelConfig) -> None:
    """Raise ConfigError if a requested depth is not that of the checkpoint's model; wrong types are found later."""
    number = whole_number(depth)
    if depth != AUTO and number in (None, model.depth, model.num_layers):
        return
    message = (
        f"depth {depth} is not the shape of the checkpoint's model, which has {model.num_layers} layers of width "
        f"{model.d_model}; leave model.depth out"
    )
    raise ConfigError(f"model.depth: {message}", errors=[{"location": "model.depth", "message": message}])
