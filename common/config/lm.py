"""What one pretraining job does: model, data, optimisation, checkpoints, evaluation (`configs/base_config.yaml`).

The defaults give 30,623,057 parameters, trained on TinyStories. Loaded by `common.config.load_lm_config`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from common.config.base import Section, on_or_off
from common.files import path_problem, shortened
from tidal_client.wire.sampling import RepetitionPenalty, Temperature

MAX_NAME_LENGTH: Final = 128
MAX_VERSION_LENGTH: Final = 64
"""With both at their longest, every file made from them has a name of at most 255 bytes: the model in its two formats,
its manifest, their temporary names, the folders of an export."""
_FILE_NAME_PART: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ModelConfig(Section):
    """The shape of a `common.model.TransformerLM`."""

    name: str = Field("transformer-lm", pattern=_FILE_NAME_PART, max_length=MAX_NAME_LENGTH)
    """Goes into the name of the final file: `{name}_v{version}.pth`. Letters, digits, `.`, `_` and `-`, at most 128."""
    version: str = Field("1.0.0", pattern=_FILE_NAME_PART, max_length=MAX_VERSION_LENGTH)
    """Letters, digits, `.`, `_` and `-`, at most 64; a number such as 1.0 in quotes."""
    vocab_size: int = Field(50257, ge=2)
    """V, entries of the vocabulary."""
    d_model: int = Field(256, ge=2)
    """D, model width; a multiple of num_heads."""
    num_layers: int = Field(6, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(8, ge=1)
    """H; d_model / num_heads is the head width K and must be even (rotary halves)."""
    ffn_dim: int = Field(1024, ge=1)
    """Width of the feed-forward layer."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    context_length: int = Field(256, ge=2)
    """Most positions in one forward pass, tokens."""
    gate_dim: Literal[1] = 1
    """Inputs of a DynamicGate: one modulation. Older files with three are migrated on load."""
    gate_hidden_dim: int = Field(32, ge=1)
    """Hidden width of a DynamicGate."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary angles."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % self.num_heads or (self.d_model // self.num_heads) % 2:
            raise ValueError(
                f"d_model {self.d_model} over num_heads {self.num_heads} is not an even head width; "
                f"choose d_model as a multiple of {2 * self.num_heads}"
            )
        return self

    def shape(self) -> dict[str, object]:
        """What decides whether weights of one model mean the same in another: all but names and dropout."""
        return self.model_dump(mode="json", exclude={"name", "version", "dropout"})

    @property
    def head_dim(self) -> int:
        """K, width of one head."""
        return self.d_model // self.num_heads


MOST_SOURCE = 4096
"""Characters of the name of a corpus, as many as a path may have on Linux."""
MOST_TEXT_FIELD = 200
"""Characters of the name of a field or column."""


class DataConfig(Section):
    """Where the text comes from."""

    source: str = Field("roneneldan/TinyStories", max_length=MOST_SOURCE)
    """`builtin:stories` (procedural sample that ships with Tidal), the name of an uploaded dataset, a path to .txt,
    .jsonl or .parquet, also gzipped, or owner/name on the hub for `datasets`."""
    validation_source: str | None = Field(None, max_length=MOST_SOURCE)
    """A second file, dataset or hub split for validation; without it `validation_fraction` of the documents is held
    out."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of documents held out when the source has no validation part."""
    text_field: str = Field("text", min_length=1, max_length=MOST_TEXT_FIELD)
    """Column of .jsonl, .parquet and hub data sets; an uploaded dataset has its own."""
    max_documents: int | None = Field(None, ge=2)
    """Use the first so many documents only."""
    tokenizer: Literal["gpt2"] = "gpt2"

    @field_validator("source", "validation_source")
    @classmethod
    def _can_be_a_file(cls, name: str | None) -> str | None:
        if name is not None and (problem := path_problem(name)):
            raise ValueError(f"the name {shortened(name)} {problem}")
        if name == "":
            raise ValueError("the name of the corpus is empty")
        return name


class CheckpointConfig(Section):
    """When training state is written and how much of it is kept."""

    every_steps: int | None = Field(None, ge=1)
    """Steps between checkpoints; None: by time only."""
    every_seconds: float = Field(300.0, gt=0)
    """Seconds between checkpoints, at most."""
    keep_last: int = Field(3, ge=1)
    """Newest checkpoints that stay on disk; the best by validation loss stays as well."""
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints at multiples of so many steps stay, too."""


class EvaluationConfig(Section):
    """Validation during and after training."""

    every_steps: int | None = Field(None, ge=1)
    """Steps between validations; None: once per epoch."""
    batch_size: int = Field(64, ge=1)
    """Sequences per forward pass."""
    max_batches: int | None = Field(None, ge=1)
    """Batches per validation; None: the whole validation part."""
    prompts: tuple[str, ...] = ("Once upon a time", "The little cat", "Mom said to", "One day, a boy")
    """Prompts of the final samples."""
    sample_tokens: int = Field(100, ge=1)
    temperature: Temperature = 0.8
    """0: the likeliest token each time; otherwise 0.001 or more."""
    top_k: int = Field(40, ge=1)
    repetition_penalty: RepetitionPenalty = 1.2


class TrainingConfig(Section):
    """Optimisation of the language model."""

    epochs: int = Field(3, ge=1)
    max_steps: int | None = Field(None, ge=1)
    """Optimiser updates in all; overrides epochs where it is reached first."""
    max_seconds: float | None = Field(None, gt=0)
    """Wall time after which training ends as if complete (validation and final model follow); None: no limit."""
    effective_batch_size: int = Field(2048, ge=1)
    """Sequences per optimiser update, reached by gradient accumulation; a multiple of micro_batch_size."""
    micro_batch_size: int = Field(64, ge=1)
    """Sequences per forward and backward pass. Lower it when CUDA runs out of memory."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the cosine schedule."""
    min_learning_rate: float = Field(1e-6, ge=0)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Share of all steps with linear warm-up; ignored when warmup_steps is given."""
    warmup_steps: int | None = Field(None, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    """AdamW decay, on matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    patience: int = Field(5, ge=1)
    """Validations without an improvement of min_delta before training stops early."""
    min_delta: float = Field(1e-4, ge=0)
    """Nats."""
    modulation_fraction: float = Field(0.1, ge=0, le=1)
    """Share of micro-batches in which the gates see a random modulation; the rest train with None."""
    seed: int = Field(42, ge=0)
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto: bf16 on CUDA, float32 on CPU."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = "auto"
    """torch.compile; auto: on for CUDA only. yes, no, true and false are taken for on and off."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: all cores. Bit-exact resume needs the same number."""
    log_every_steps: int = Field(1, ge=1)
    """Steps between metric points."""

    @model_validator(mode="after")
    def _accumulation_is_whole(self) -> Self:
        if self.effective_batch_size % self.micro_batch_size:
            raise ValueError(
                f"effective_batch_size {self.effective_batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        return self


class LMConfig(Section):
    """A whole pretraining job."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
