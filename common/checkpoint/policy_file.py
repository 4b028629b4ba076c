"""Reads controller checkpoints: the original's `rl_checkpoint_*.pth`, Tidal's exports and checkpoint folders.

The result is a mapping with `agent_state_dict` and the other entries of the file; `common.controller` builds the
policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.checkpoint.files import load_tensors, safe_load
from common.checkpoint.finite import require_usable
from common.checkpoint.manager import read_checkpoint
from common.checkpoint.state import strip_prefix
from common.errors import CheckpointError

FIRST_NAME = "feature_extractor.0.weight"
"""Name of a tensor that every policy has."""
AGENT = "agent_state_dict"
"""Key of the policy's state dict in a controller checkpoint."""


def load_policy_file(path: str | Path, *, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the content of the file, always with a mapping of tensors under `agent_state_dict`.

    A bare policy state dict is wrapped under this key. Raises NotFoundError if the file does not exist, CheckpointError
    if it is damaged, unsafe, not finite or not a controller.
    """
    path = Path(path)
    if path.is_dir():
        weights, meta = read_checkpoint(path)
        if meta.get("kind") != "rl":
            raise CheckpointError(
                f"{path}: expected a controller checkpoint, found kind '{meta.get('kind', 'unknown')}'"
            )
        loaded: Any = {**meta, AGENT: {name: tensor.to(map_location) for name, tensor in weights.items()}}
    elif path.suffix == ".safetensors":
        weights, meta = load_tensors(path, device=map_location)
        loaded = {**meta, AGENT: weights}
    else:
        loaded = safe_load(path, map_location=map_location)
    if isinstance(loaded, Mapping) and AGENT not in loaded and FIRST_NAME in map(strip_prefix, map(str, loaded)):
        loaded = {AGENT: loaded}
    if not isinstance(loaded, Mapping) or not isinstance(loaded.get(AGENT), Mapping):
        raise CheckpointError(f"{path}: not a controller checkpoint (it has no {AGENT})")
    agent = {strip_prefix(str(name)): value for name, value in loaded[AGENT].items()}
    if FIRST_NAME not in agent or not all(isinstance(value, Tensor) for value in agent.values()):
        raise CheckpointError(f"{path}: its {AGENT} is not the state dict of a controller")
    require_usable(agent, str(path))
    return {**loaded, AGENT: agent}
