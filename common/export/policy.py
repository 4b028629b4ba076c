"""Controllers for others: the original's `rl_checkpoint_*.pth`, or their weights as safetensors with configuration.

What a file holds is kept as it is; a checkpoint folder of ours becomes what its training would leave. Leaves out, in
safetensors, and says so: the gates of the language model that the original trains beside a controller.
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
from common.config import RLConfig
from common.errors import CheckpointError
from common.files import write_text
from common.rl.export import original_keys

GATES = "gate_state_dict"
KEPT = (
    *("optimizer_state_dict", "global_step", "config", "entropy_homeostasis_coef", "diversity_homeostasis_weight"),
    *("lagrange_multiplier_state", GATES, "gate_optimizer_state_dict"),
)
"""What the original's files hold beside the policy."""


def is_agent(loaded: Mapping[str, Any]) -> bool:
    """Whether this is what a controller's file holds."""
    return AGENT in loaded or FIRST_NAME in map(strip_prefix, map(str, loaded))


def policy_content(source: Path) -> dict[str, Any]:
    """The mapping of an `rl_checkpoint_*.pth` for this controller. Errors as those of `load_policy_file`."""
    loaded = load_policy_file(source)
    found: dict[str, Any] = {AGENT: loaded[AGENT], "global_step": 0, "config": {}}
    found.update({name: loaded[name] for name in KEPT if name in loaded})
    if source.is_dir():
        state = safe_load(source / "training_state.pt")
        if not isinstance(state, Mapping) or "optimizer" not in state:
            raise CheckpointError(f"{source}: its training state holds no optimiser; the folder is damaged")
        found["optimizer_state_dict"] = state["optimizer"]
        found["config"] = _with_original_keys(found["config"], source)
    return found


def write_policy_file(found: Mapping[str, Any], path: Path) -> None:
    """`found` as the suffix of `path` says. OSError when the disk refuses."""
    if path.suffix == ".pth":
        write_object(path, dict(found))
        return
    about = {"kind": "rl", "config": found["config"], "global_step": found["global_step"]}
    write_tensors(path, found[AGENT], about)
    write_text(path.with_name(f"{path.name}.json"), json.dumps(about, indent=2, sort_keys=True) + "\n")


def omitted_weights(found: Mapping[str, Any], path: Path) -> list[str]:
    """What the caller should be told after `write`: weights of `found` that the form of `path` does not hold."""
    gates = found.get(GATES)
    if path.suffix == ".pth" or not gates:
        return []
    tensors = f"{len(gates)} tensors" if isinstance(gates, Mapping) else type(gates).__name__
    return [
        f"left out: {GATES} ({tensors}), the gates of the language model that were trained beside this controller; "
        "--format pth keeps them"
    ]


def _with_original_keys(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    try:
        return {**config, **original_keys(RLConfig.model_validate(config))}
    except ValidationError as error:
        finding = error.errors()[0]["msg"]
        raise CheckpointError(f"{source}: the configuration in its manifest is invalid: {finding}") from error
