"""A TransformerLM packed for the C++ library, and its forward passes. Shapes are those of `decoding_model`.

Every result of a row is the same to the last bit in any batch. Float32 results differ from PyTorch's by rounding.
int8 layers have one scale per output and round the inputs of each row to 8 bits with a scale of their own; sums are
exact, and prompts use the same layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.generation.cpu.huge_pages import in_huge_pages
from common.generation.cpu.packed_layer import pack_gates, pairs_together
from common.generation.cpu.packed_linear import LEAST_BIAS
from common.generation.native.library import (
    GatesStructure,
    LayerStructure,
    LinearStructure,
    ModelStructure,
    NormStructure,
    PassStructure,
    load,
)
from common.generation.slot_cache import SlotCache
from common.model import DynamicGate, TransformerLM
from common.model.norm import RMS_NORM_EPS

PANEL = 16
"""Outputs of a layer are packed in groups of this many, as `linear.h` defines."""
ACTIVATIONS = {"gelu": 0, "relu2": 1}


class NativeModel:
    """The packed weights of a model on a CPU. Raises Unavailable if the library cannot be used."""

    def __init__(self, model: TransformerLM, *, int8: bool) -> None:
        self._library = load()
        self._int8 = int8
        self._kept: list[Tensor] = []
        config = self._config = model.config
        half = config.head_dim // 2
        rotations = torch.stack((model.rope_cos[:, :half].float(), model.rope_sin[:, :half].float()), dim=-1)
        self._layers = (LayerStructure * config.num_layers)(*map(self._layer, model.blocks))
        self._structure = ModelStructure(
            layers=config.num_layers,
            width=config.d_model,
            heads=config.num_heads,
            activation=ACTIVATIONS[config.activation],
            qk_norm=config.qk_norm,
            embedding_norm=config.embedding_norm,
            capacity=config.context_length,
            rms_eps=RMS_NORM_EPS,
            softcap=config.logit_softcap or 0.0,
            embedding=self._keep(model.token_embeddings.weight.detach().float()),
            rotations=self._keep(rotations),
            final_norm=self._norm(model.final_layer_norm),
            head=self._linear(model.output_projection.weight, model.output_projection.bias),
            layer=self._layers,
        )
        self._gates = self._gates_structure(model.gates) if model.gates_trained else None

    @property
    def nbytes(self) -> int:
        """Return the memory of the weights in bytes."""
        return sum(tensor.nbytes for tensor in self._kept)

    def decode(self, tokens: Tensor, cache: SlotCache, scales: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append tokens (n,) int64 to the slots in use. Return logits (n, V) and final states (n, D)."""
        cache.max_next_position()  # raises ValueError when a slot is full
        n = len(tokens)
        logits, hidden = torch.empty(n, self._config.vocab_size), torch.empty(n, self._config.d_model)
        self._forward(tokens, range(n), cache.lengths, cache, scales, torch.empty_like(hidden), logits, hidden)
        cache.advance()
        return logits, hidden

    def gate_scales(self, modulation: Tensor, gated: Tensor) -> Tensor | None:
        """Return the factors (G, n, D) of the gates at modulation (n,), 1 where `gated` (n,) bool is false.

        Returns None if the gates were not trained.
        """
        if self._gates is None:
            return None
        modulation, gated = modulation.float().contiguous(), gated.contiguous()
        scales = torch.empty(self._gates.count, len(modulation), self._gates.width)
        self._library.tidal_gates(
            ctypes.byref(self._gates),
            modulation.data_ptr(),
            gated.data_ptr(),
            len(modulation),
            scales.data_ptr(),
            self._threads,
        )
        return scales

    def prefill_states(self, ids: Tensor, lengths: Sequence[int], cache: SlotCache, first: int) -> Tensor:
        """Read prompts ids (n, T) of `lengths` tokens into the slots from `first` on, without modulation.

        Returns the states (n, T, D) of all positions before the final norm; those of the padding are 0.
        """
        n, T = ids.shape
        present = torch.arange(T) < torch.tensor(lengths)[:, None]
        slots = [first + row for row, length in enumerate(lengths) for _ in range(length)]
        positions = [position for length in lengths for position in range(length)]
        states = torch.empty(len(slots), self._config.d_model)
        self._forward(ids[present], slots, positions, cache, None, states)
        cache.set_lengths(first, list(lengths))
        padded = torch.zeros(n, T, self._config.d_model)
        padded[present] = states
        return padded

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (P, V) and final states (P, D) of states (P, D) before the final norm."""
        states = states.contiguous()
        logits, hidden = torch.empty(len(states), self._config.vocab_size), torch.empty_like(states)
        arguments = PassStructure(
            count=len(states), states=states.data_ptr(), logits=logits.data_ptr(), hidden=hidden.data_ptr()
        )
        if len(states):
            self._library.tidal_project(ctypes.byref(self._structure), ctypes.byref(arguments), self._threads)
        return logits, hidden

    @property
    def _threads(self) -> int:
        return torch.get_num_threads()

    def _forward(
        self,
        tokens: Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        cache: SlotCache,
        scales: Tensor | None,
        states: Tensor,
        logits: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> None:
        """Run a pass over rows; `states` (n, D), and `logits` and `hidden` if given, receive its results."""
        tokens = tokens.contiguous()
        slot, position = torch.tensor(slots, dtype=torch.int32), torch.tensor(positions, dtype=torch.int32)
        scales = None if scales is None else scales.contiguous()
        arguments = PassStructure(
            count=len(tokens),
            slots=cache.keys.shape[1],
            tokens=tokens.data_ptr(),
            slot=slot.data_ptr(),
            position=position.data_ptr(),
            keys=cache.keys.data_ptr(),
            values=cache.values.data_ptr(),
            scales=None if scales is None else scales.data_ptr(),
            states=states.data_ptr(),
            logits=None if logits is None else logits.data_ptr(),
            hidden=None if hidden is None else hidden.data_ptr(),
        )
        self._library.tidal_forward(ctypes.byref(self._structure), ctypes.byref(arguments), self._threads)

    def _layer(self, block: nn.Module) -> LayerStructure:
        def parameter(name: str) -> Tensor:
            return block.get_parameter(name).detach()

        def linear(name: str) -> LinearStructure:
            return self._linear(parameter(f"{name}.weight"), parameter(f"{name}.bias") if config.bias else None)

        def joined(kind: str) -> Tensor:
            query, key, value = (parameter(f"{name}.{kind}") for name in ("q_proj", "k_proj", "v_proj"))
            return torch.cat((*(pairs_together(part, config.num_heads) for part in (query, key)), value))

        config = self._config
        return LayerStructure(
            norm1=self._norm(block.get_submodule("ln1")),
            norm2=self._norm(block.get_submodule("ln2")),
            qkv=self._linear(joined("weight"), joined("bias") if config.bias else None),
            out=linear("out_proj"),
            up=linear("ffn.0"),
            down=linear("ffn.3"),
        )

    def _linear(self, weight: Tensor, bias: Tensor | None) -> LinearStructure:
        weight = weight.detach().float().contiguous()
        outputs, inputs = weight.shape
        whole = -(-outputs // PANEL) * PANEL
        structure = LinearStructure(inputs=inputs, outputs=outputs)
        if bias is not None:
            structure.bias = self._keep(_padded(bias.detach().float().clamp(min=LEAST_BIAS), whole))
        if self._int8:
            scale = weight.abs().amax(1).clamp(min=1e-12) / 127.0
            steps = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8).contiguous()
            packed = in_huge_pages(torch.zeros(whole * (inputs + inputs % 2), dtype=torch.int8))
            self._library.tidal_pack8(steps.data_ptr(), outputs, inputs, packed.data_ptr())
            structure.weight8, structure.scale = self._keep(packed), self._keep(_padded(scale, whole))
        else:
            packed = in_huge_pages(torch.zeros(whole * inputs))
            self._library.tidal_pack(weight.data_ptr(), outputs, inputs, packed.data_ptr())
            structure.weight = self._keep(packed)
        return structure

    def _norm(self, module: nn.Module) -> NormStructure:
        if not isinstance(module, nn.LayerNorm):
            return NormStructure(eps=RMS_NORM_EPS)
        weight, bias = module.weight.detach().float(), module.bias.detach().float()
        return NormStructure(weight=self._keep(weight), bias=self._keep(bias), eps=module.eps)

    def _gates_structure(self, gates: Sequence[DynamicGate]) -> GatesStructure:
        first, first_bias, last, last_bias = pack_gates(gates)
        return GatesStructure(
            count=len(gates),
            inner=first.shape[1],
            width=last.shape[2],
            first=self._keep(first),
            first_bias=self._keep(first_bias),
            last=self._keep(last),
            last_bias=self._keep(last_bias),
        )

    def _keep(self, tensor: Tensor) -> int:
        """Keep a tensor alive, and return the address of its numbers."""
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _padded(numbers: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(numbers, (0, length - len(numbers)))
