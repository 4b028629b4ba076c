"""Copies tensors from the host to a device without waiting for the device.

An ordinary copy to a GPU makes the host wait until the GPU has finished everything launched before. So training,
rollouts and generation send their numbers with `to_device`. `torch.tensor(…, device=…)`, and a number assigned to
positions that a tensor of integers selects (`x[index] = 0`), wait as well. `x.index_fill_(0, index, 0)` does not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`, or `tensor` itself if it is there.

    A copy to a GPU reads from pinned memory, which torch does not reuse before the copy is complete.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
