"""Reads controller checkpoints: `rl_checkpoint_*.pth` files of the original, and Tidal's exports and checkpoint
folders.

`common.controller` builds a policy from the result.
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
"""Name of a tensor that every policy's state dict has."""
AGENT = "agent_state_dict"
"""Key of the policy's state dict in a controller checkpoint."""


def load_policy_file(path: str | Path, *, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the entries of the file as a dictionary, in which `agent_state_dict` is the policy's state dict.

    If the file contains only a state dict, the result has only this entry. Raises NotFoundError if the file does not
    exist. Raises CheckpointError if the file is damaged, is not a controller, or contains pickled code or weights that
    are not finite.
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
