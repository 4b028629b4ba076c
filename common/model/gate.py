"""DynamicGate: scales each channel of a residual branch by a learned function of the modulation.

The scale is sigmoid(Linear(GELU(Linear(m)))) in (0, 1). The last layer starts with weight 0 and bias 2, so a new gate
multiplies every channel by 0.88 at any m. Without modulation the scale is exactly 1. A model without gates
(`model.gates: false`) has a `NoGate` in each place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_BIAS = 2.0


class DynamicGate(nn.Module):
    """Maps the modulation (B, gate_dim) to a scale per channel (B, 1, D), which is broadcast over time."""

    def __init__(self, gate_dim: int, hidden_dim: int, d_model: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(gate_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, d_model))
        self.reset_output()

    def reset_output(self) -> None:
        """Set the last layer to its initial values: weight 0, bias 2."""
        last = self.net[-1]
        nn.init.zeros_(last.get_parameter("weight"))
        nn.init.constant_(last.get_parameter("bias"), INITIAL_BIAS)

    def forward(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """Return x (B, T, D) scaled by the gate at modulation (B, gate_dim), or x itself when modulation is None."""
        if modulation is None:
            return x
        scale = torch.sigmoid(self.net(modulation)).unsqueeze(1)
        return (x * scale).type_as(x)


class NoGate(nn.Module):
    """Takes the place of a gate in a model without gates: it has no parameters and returns its input."""

    def forward(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """Return x. `TransformerLM` refuses a modulation before it gets here."""
        return x
