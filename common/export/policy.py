"""Exports controllers as the original's `rl_checkpoint_*.pth`, or as safetensors with configuration.

In the `.pth` format, the policy and the values named in `KEPT` are copied unchanged from a source file. A checkpoint
folder is converted to the file that its training would write at the end. A safetensors export omits the gates that the
original trains together with a controller (they belong to the language model), and reports the omission.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.checkpoint import load_policy_file, safe_load
from common.checkpoint.files import write_object, write_tensors
from common.checkpoint.policy_file import AGENT, FIRST_NAME
from common.checkpoint.state import strip_prefix
from common.checkpoint.vocabulary_file import META_KEY
from common.config import RLConfig
from common.errors import CheckpointError
from common.files import write_text
from common.rl.export import original_keys

GATES = "gate_state_dict"
KEPT = (
    META_KEY,
    *("optimizer_state_dict", "global_step", "config", "entropy_homeostasis_coef", "diversity_homeostasis_weight"),
    *("lagrange_multiplier_state", GATES, "gate_optimizer_state_dict"),
)
"""Keys of controller files that are exported in addition to the policy."""


def is_agent(loaded: Mapping[str, Any]) -> bool:
    """Return whether `loaded` is the content of a controller's file."""
    return AGENT in loaded or FIRST_NAME in map(strip_prefix, map(str, loaded))


def policy_content(source: Path) -> dict[str, Any]:
    """Return the content of an `rl_checkpoint_*.pth` for the controller in `source`, a file or a checkpoint folder.

    Raises the errors of `load_policy_file`.
    """
    loaded = load_policy_file(source)
    content: dict[str, Any] = {AGENT: loaded[AGENT], "global_step": 0, "config": {}}
    content.update({name: loaded[name] for name in KEPT if name in loaded})
    if source.is_dir():
        state = safe_load(source / "training_state.pt")
        if not isinstance(state, Mapping) or "optimizer" not in state:
            raise CheckpointError(f"{source}: its training state has no optimiser; the folder is damaged")
        content["optimizer_state_dict"] = state["optimizer"]
        content["config"] = _with_original_keys(content["config"], source)
    return content


def write_policy_file(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` in the format that the suffix of `path` names. Raises OSError if the write fails."""
    if path.suffix == ".pth":
        write_object(path, dict(content))
        return
    meta = {"kind": "rl", "config": content["config"], "global_step": content["global_step"]}
    if META_KEY in content:
        meta[META_KEY] = content[META_KEY]
    write_tensors(path, content[AGENT], meta)
    write_text(path.with_name(f"{path.name}.json"), json.dumps(meta, indent=2, sort_keys=True) + "\n")


def omitted_weights(content: Mapping[str, Any], path: Path) -> list[str]:
    """Return remarks about weights in `content` that the format of `path` cannot hold."""
    gates = content.get(GATES)
    if path.suffix == ".pth" or not gates:
        return []
    tensors = f"{len(gates)} tensors" if isinstance(gates, Mapping) else type(gates).__name__
    return [
        f"not exported: {GATES} ({tensors}), the gates of the language model that were trained with this controller; "
        "use --format pth to keep them"
    ]


def _with_original_keys(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    try:
        return {**config, **original_keys(RLConfig.model_validate(config))}
    except ValidationError as error:
        finding = error.errors()[0]["msg"]
        raise CheckpointError(f"{source}: the configuration in its manifest is invalid: {finding}") from error
