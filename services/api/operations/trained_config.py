"""Reads the configuration with which the language model of a checkpoint was trained."""

from __future__ import annotations

from common.artifacts import ArtifactStore
from common.config import LMConfig, build
from common.config.yaml_text import read_mapping
from common.errors import ConfigError


def experiment_config(store: ArtifactStore, checkpoint: str) -> LMConfig | None:
    """Return the configuration in the experiment of a checkpoint `<experiment id>/<file>`, or None if it has none."""
    folder = store.experiment(checkpoint.split("/", 1)[0])
    for name in ("config.yaml", "base_config.yaml"):
        try:
            values = read_mapping(folder / name)
            if isinstance(values.get("data"), dict):
                return build(LMConfig, values, where=name)
        except ConfigError:
            continue
    return None
