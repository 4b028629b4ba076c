"""The weights of one transformer block and of all gates, packed for decoding (`packed_linear`).

Queries, keys and values are computed with one matrix, whose columns are reordered so that the two numbers of a rotary
pair are neighbours. The forward pass is in `decoding_model` and `single_sequence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, layer_norm, nn

from common.config import ModelConfig
from common.generation.cpu.packed_linear import PackedLinear, Precision, pack
from common.model import DynamicGate
from common.model.activation import ACTIVATIONS
from common.model.norm import RMSNorm, rms_norm


class PackedNorm:
    """A norm of states (…, D): LayerNorm with its weights, or the root mean square without weights."""

    def __init__(self, module: nn.Module) -> None:
        assert isinstance(module, nn.LayerNorm | RMSNorm)
        self._layer_norm: tuple[list[int], Tensor, Tensor, float] | None = None
        if isinstance(module, nn.LayerNorm):
            weight, bias = module.weight.detach(), module.bias.detach()
            self._layer_norm = list(module.normalized_shape), weight, bias, module.eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return the normalised states."""
        return rms_norm(x) if self._layer_norm is None else layer_norm(x, *self._layer_norm)


class PackedLayer:
    """The packed weights of one block."""

    def __init__(self, block: nn.Module, config: ModelConfig, precision: Precision) -> None:
        def layer(name: str) -> tuple[Tensor, Tensor | None]:
            bias = block.get_parameter(f"{name}.bias") if config.bias else None
            return block.get_parameter(f"{name}.weight"), bias

        def joined(parts: list[Tensor]) -> Tensor:
            query, key, value = parts
            return torch.cat((*(pairs_together(part, config.num_heads) for part in (query, key)), value))

        projections = [layer(name) for name in ("q_proj", "k_proj", "v_proj")]
        biases = [bias for _, bias in projections if bias is not None]
        bias = joined(biases) if biases else None
        self.qkv: PackedLinear = pack(joined([weight for weight, _ in projections]), bias, precision)
        self.qk_norm = config.qk_norm
        self.out: PackedLinear = pack(*layer("out_proj"), precision)
        self.up: PackedLinear = pack(*layer("ffn.0"), precision)
        self.down: PackedLinear = pack(*layer("ffn.3"), precision)
        self.norm1 = PackedNorm(block.get_submodule("ln1"))
        self.norm2 = PackedNorm(block.get_submodule("ln2"))
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[config.activation]
        self.activated_up = self.up.relu_squared if config.activation == "relu2" else self.up.gelu
        """`activation` of the result of `up`, computed in the same pass where that is possible."""

    def normalised(self, heads: Tensor) -> Tensor:
        """Return the queries and keys (…, K) as the block normalises them: with QK-norm or unchanged."""
        return rms_norm(heads) if self.qk_norm else heads

    @property
    def matrices(self) -> list[PackedLinear]:
        """The linear layers in the order in which they are applied."""
        return [self.qkv, self.out, self.up, self.down]

    @property
    def nbytes(self) -> int:
        """Return the memory of the weights in bytes."""
        return sum(matrix.nbytes for matrix in self.matrices)


def pairs_together(tensor: Tensor, num_heads: int) -> Tensor:
    """Return rows (H·K, …) with the rows [a…, b…] of each head reordered to [a0, b0, a1, b1, …]."""
    return torch.unflatten(tensor.detach(), 0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def pack_gates(gates: Sequence[DynamicGate]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first weights and biases (G, 32), the last weights (G, 32, D) and biases (G, D) of all gates."""
    named = [dict(gate.net.named_parameters()) for gate in gates]

    def stacked(name: str) -> Tensor:
        return torch.stack([parameters[name].detach().float() for parameters in named])

    last = stacked("2.weight").transpose(1, 2).contiguous()
    return stacked("0.weight").squeeze(2), stacked("0.bias"), last, stacked("2.bias")
