"""The section `model` of a pretraining job: shape and architecture of the language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.config.base import Section
from common.config.depth import model_fields, whole_number
from common.config.tokenizers import GPT2_SIZE

MAX_NAME_LENGTH: Final = 128
MAX_VERSION_LENGTH: Final = 64
"""Largest numbers of characters of a model's name and version. With these limits, the names of all files and folders
that contain name and version, including temporary files and exports, have at most 255 bytes."""
_FILE_NAME_PART: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NANOCHAT: Final = {
    "norm": "rmsnorm",
    "embedding_norm": True,
    "qk_norm": True,
    "activation": "relu2",
    "bias": False,
    "gates": False,
}
"""The fields of `ModelConfig` that make the architecture that transformers calls NanoChat."""
ARCHITECTURE: Final = (*NANOCHAT, "logit_softcap")
"""The fields of `ModelConfig` that choose the architecture. Their defaults are the reference."""


class ModelConfig(Section):
    """The shape and architecture of a `common.model.TransformerLM`; the defaults are the reference architecture."""

    name: str = Field("transformer-lm", pattern=_FILE_NAME_PART, max_length=MAX_NAME_LENGTH)
    """Name of the model, which is part of the final file's name `{name}_v{version}.pth`: at most 128 letters, digits,
    `.`, `_` and `-`."""
    version: str = Field("1.0.0", pattern=_FILE_NAME_PART, max_length=MAX_VERSION_LENGTH)
    """Version of the model: at most 64 letters, digits, `.`, `_` and `-`; write a number such as 1.0 in quotes."""
    depth: int | Literal["auto"] | None = None
    """One number, at least 1, for the size of the model: num_layers = depth, d_model = 64 · depth, num_heads = depth,
    ffn_dim = 256 · depth. It also sets learning_rate, effective_batch_size and micro_batch_size. auto chooses it from
    the size of the text, about one weight per byte, and also sets dropout and weight_decay. Fields that are set beside
    it keep their values. null means that all fields are set one by one."""
    vocab_size: int = Field(GPT2_SIZE, ge=2)
    """V, the number of tokens in the vocabulary. The default is the size of GPT-2's vocabulary; with a trained one
    (`data.tokenizer`), its size replaces the default, and any other value is an error."""
    d_model: int = Field(256, ge=2)
    """D, the model width; a multiple of num_heads."""
    num_layers: int = Field(6, ge=1)
    """Number of transformer blocks."""
    num_heads: int = Field(8, ge=1)
    """H, the number of attention heads. The head width K = d_model / num_heads must be even for rotary embeddings."""
    ffn_dim: int = Field(1024, ge=1)
    """Width of the feed-forward layer."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Dropout probability."""
    context_length: int = Field(256, ge=2)
    """Most tokens of a sequence in one forward pass (context length)."""
    gate_dim: Literal[1] = 1
    """Number of inputs of a DynamicGate: only the modulation. Files of the original project with three inputs are
    converted on load."""
    gate_hidden_dim: int = Field(32, ge=1)
    """Hidden width of a DynamicGate."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the angles of the rotary embedding."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Norm of the states before each branch and before the head: LayerNorm with weights, or the root mean square
    without weights."""
    embedding_norm: bool = False
    """Whether the token embeddings are divided by their root mean square before the first block."""
    qk_norm: bool = False
    """Whether the queries and keys of each head are divided by their root mean square (QK-norm)."""
    activation: Literal["gelu", "relu2"] = "gelu"
    """Activation of the feed-forward layer: GELU, or the square of the ReLU."""
    bias: bool = True
    """Whether the linear layers of the blocks and the head have biases. Gates and LayerNorm always have them."""
    gates: bool = True
    """Whether each branch has a gate that the modulation controls. Without gates, training.modulation_fraction has no
    effect, and a controller changes only the decoding parameters."""
    logit_softcap: float | None = Field(None, gt=0)
    """c, which limits the logits z to c · tanh(z / c); None means no limit."""
    zero_init: bool = False
    """Whether the last projections of both branches of a block start at 0, so that a new block changes nothing."""

    @model_validator(mode="before")
    @classmethod
    def _follow_depth(cls, given: Any) -> Any:
        depth = whole_number(given.get("depth")) if isinstance(given, Mapping) else None
        return given if depth is None else {**model_fields(depth), **given}

    @field_validator("depth")
    @classmethod
    def _depth_is_positive(cls, depth: int | str | None) -> int | str | None:
        if isinstance(depth, int) and depth < 1:
            raise ValueError(f"depth {depth} is below 1")
        return depth

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % self.num_heads or (self.d_model // self.num_heads) % 2:
            raise ValueError(
                f"d_model {self.d_model} over num_heads {self.num_heads} is not an even head width; "
                f"choose d_model as a multiple of {2 * self.num_heads}"
            )
        return self

    def shape(self) -> dict[str, object]:
        """Return the fields that must be equal for two models to share weights."""
        return self.model_dump(mode="json", exclude={"name", "version", "dropout", "zero_init", "depth"})

    @property
    def head_dim(self) -> int:
        """K, the width of an attention head."""
        return self.d_model // self.num_heads

    def changed_architecture(self) -> dict[str, object]:
        """Return the fields in which the architecture differs from the reference; {} means that it is the reference."""
        values = {name: getattr(self, name) for name in ARCHITECTURE}
        return {name: value for name, value in values.items() if value != ModelConfig.model_fields[name].default}

    @property
    def is_nanochat(self) -> bool:
        """Whether the architecture is NanoChat's in transformers; its soft cap of the logits may be any or none."""
        return all(getattr(self, name) == value for name, value in NANOCHAT.items())
