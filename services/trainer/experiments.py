"""Writes the files that describe an experiment: its configuration as YAML, and `metadata.json`.

The first attempt writes them; later attempts do not change them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from common.config import LMConfig, RLConfig, dump_yaml
from common.files import write_atomic, write_text


def write_lm_config(directory: Path, config: LMConfig) -> None:
    """Write the `config.yaml` of a language model training."""
    _write_once(directory / "config.yaml", dump_yaml(config))


def write_rl_config(directory: Path, config: RLConfig, lm_checkpoint: Path) -> None:
    """Write `rl_config.yaml`. If the language model's configuration is known, write it as `base_config.yaml`."""
    _write_once(directory / "rl_config.yaml", dump_yaml(config))
    base = find_config_file(lm_checkpoint)
    if base is not None:
        _write_once(directory / "base_config.yaml", base.read_text(encoding="utf-8"))


def write_metadata(directory: Path, kind: str, source_checkpoint: str | None) -> None:
    """Write `metadata.json`.

    `source_experiment_id` is the experiment in the reference `source_checkpoint`; null without such a reference, or if
    `source_checkpoint` is an absolute path.
    """
    source = None
    if source_checkpoint and not Path(source_checkpoint).is_absolute():
        source = source_checkpoint.removeprefix("experiments/").split("/", 1)[0]
    metadata = {
        "type": kind,
        "created_at": datetime.now(UTC).isoformat(),
        "source_experiment_id": source,
        "source_checkpoint": source_checkpoint,
    }
    _write_once(directory / "metadata.json", json.dumps(metadata, indent=2) + "\n")


def find_config_file(lm_checkpoint: Path) -> Path | None:
    """Return the `config.yaml` of the experiment that contains `lm_checkpoint`; None if there is no such file."""
    for folder in lm_checkpoint.parents[:2]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    return None


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    write_atomic(path, lambda temporary: write_text(temporary, text))
