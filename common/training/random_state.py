"""Saves and restores the state of every random number generator that a training uses.

The state can be loaded by torch.load with weights_only=True.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_random_state(seed: int) -> None:
    """Seed torch (CPU and every CUDA device), numpy's global generator and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture_random_state() -> dict[str, Any]:
    """Return the states of torch (CPU and every CUDA device), numpy's global generator and Python's.

    They consist of tensors, numbers and tuples.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # legacy=True returns a tuple
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> bool:
    """Restore a result of `capture_random_state`. Return False if the CUDA states were skipped.

    They are skipped if the number of CUDA devices has changed.
    """
    torch.set_rng_state(state["torch"].cpu().to(torch.uint8))
    numpy = state["numpy"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(state["cuda"]) != devices:
        return False
    if devices:
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
    return True
