"""The configuration of a pretraining job: model, data, optimisation, checkpoints, evaluation.

`common.config.load_lm_config` loads it from a file such as `configs/base_config.yaml`. The defaults train a model with
30,623,057 parameters on TinyStories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from common.config.base import Section, on_or_off
from common.config.data import DataConfig
from common.config.depth import training_fields, whole_number
from common.config.model import ModelConfig
from common.config.tokenizers import GPT2, GPT2_SIZE, trained_size
from common.errors import ConfigError
from tidal_client.wire.sampling import RepetitionPenalty, Temperature

Schedule = Literal["cosine", "linear", "wsd"]


class CheckpointConfig(Section):
    """When checkpoints are written and which of them are kept."""

    every_steps: int | None = Field(None, ge=1)
    """Number of steps between checkpoints; None means that only `every_seconds` applies."""
    every_seconds: float = Field(300.0, gt=0)
    """Largest time between checkpoints, in seconds."""
    keep_last: int = Field(3, ge=1)
    """How many of the newest checkpoints are kept. The best checkpoint by validation loss is kept as well."""
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints whose step is a multiple of this number are kept in addition to the best one and the `keep_last`
    newest; None means that only those are kept."""


class EvaluationConfig(Section):
    """Validation during and after training."""

    every_steps: int | None = Field(None, ge=1)
    """Number of steps between validations; None means one validation per epoch."""
    batch_size: int = Field(64, ge=1)
    """Number of sequences per forward pass."""
    max_batches: int | None = Field(None, ge=1)
    """Most batches per validation of a corpus; None means its whole validation part."""
    prompts: tuple[str, ...] = ("Once upon a time", "The little cat", "Mom said to", "One day, a boy")
    """Prompts of the sample texts that are generated after training."""
    samples_every_steps: int | None = Field(None, ge=1)
    """Number of steps after which sample texts are generated during the training as well, always with the same seeds;
    None means that they are generated only at its end."""
    sample_tokens: int = Field(100, ge=1)
    """Number of tokens per sample text."""
    temperature: Temperature = 0.8
    """Sampling temperature of the sample texts, at least 0.001; or 0, which always selects the most likely token."""
    top_k: int = Field(40, ge=1)
    """The tokens of the sample texts are sampled from this number of most likely tokens."""
    repetition_penalty: RepetitionPenalty = 1.2
    """Repetition penalty of the sample texts; 1 means no penalty."""


class TrainingConfig(Section):
    """Optimisation of the language model."""

    epochs: int = Field(3, ge=1)
    """Number of passes over the training part of the corpus."""
    max_steps: int | None = Field(None, ge=1)
    """Number of steps (optimiser updates) after which training ends, even before the last epoch has ended; None means
    no limit."""
    max_seconds: float | None = Field(None, gt=0)
    """Wall time in seconds after which training ends as if it were complete, with validation and final model; None
    means no limit."""
    effective_batch_size: int = Field(2048, ge=1)
    """Number of sequences per optimiser update, accumulated over micro-batches; a multiple of micro_batch_size."""
    initial_batch_size: int | None = Field(None, ge=1)
    """Number of sequences per optimiser update at the beginning, a multiple of micro_batch_size. It doubles until
    effective_batch_size is reached. null means that the batch is constant."""
    batch_growth_ratio: float = Field(0.5, gt=0, le=1)
    """Share of the training in which the batch grows; each size is used for an equal part of it."""
    micro_batch_size: int = Field(64, ge=1)
    """Number of sequences per forward and backward pass. Lower it if CUDA runs out of memory."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: Muon for the matrices of the transformer blocks, and AdamW for embedding, vocabulary head, gates
    and vectors."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate after the warm-up, which is its peak."""
    matrix_learning_rate: float | None = Field(None, gt=0)
    """Peak of the learning rate of the matrices that Muon trains; null means learning_rate. An update is scaled by
    0.2 · √max(rows, columns), so that good values are near those for AdamW. Only for optimizer muon."""
    min_learning_rate: float = Field(1e-6, ge=0)
    """Learning rate at the end of the training."""
    schedule: Schedule = "cosine"
    """Curve of the learning rate after the warm-up: cosine, linear, or wsd, which is constant and decreases linearly in
    the last part (decay_ratio)."""
    decay_ratio: float = Field(0.2, gt=0, le=1)
    """Share of the training, at its end, in which the learning rate of schedule wsd decreases."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Length of the linear learning-rate warm-up as a share of all steps; ignored if warmup_steps is set."""
    warmup_steps: int | None = Field(None, ge=0)
    """Length of the linear learning-rate warm-up in steps; None means that warmup_ratio applies."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay, applied to matrices only."""
    final_weight_decay: float | None = Field(None, ge=0)
    """Weight decay at the end of the training, to which it changes linearly; null means that it is constant."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay rate for the running average of the gradient."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's decay rate for the running average of the squared gradient."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a gradient with a larger norm is scaled down to it."""
    average_decay: float | None = Field(None, gt=0, lt=1)
    """Decay rate per step of a running average of the weights, such as 0.999. Validation, sample texts and the final
    model then use the average. null means no average."""
    patience: int = Field(5, ge=1)
    """Number of consecutive validations without an improvement by min_delta after which training ends early."""
    min_delta: float = Field(1e-4, ge=0)
    """Smallest decrease of the validation loss, in nats, that counts as an improvement."""
    modulation_fraction: float = Field(0.1, ge=0, le=1)
    """Share of micro-batches in which the gates receive a random modulation; the other micro-batches have no
    modulation. Without gates (`model.gates`) it has no effect."""
    shuffle: Literal["documents", "chunks"] = "documents"
    """Order of the sequences. `documents` shuffles the documents in each epoch and divides them into sequences anew.
    `chunks`, as in the original project, divides the corpus once and only shuffles the sequences. A training that
    resumes keeps the order of its checkpoint."""
    fine_tuning_learning_rate: float | None = Field(None, gt=0)
    """Learning rate at the peak of a fine-tuning, which is a training that starts from the weights of a checkpoint
    with a new optimiser. None means a quarter of `learning_rate`."""
    seed: int = Field(42, ge=0)
    """Seed of all random numbers of the training."""
    device: str = "auto"
    """Device of the training: cpu, cuda, cuda:N, or auto, which prefers an available GPU."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Number format of the training; auto means bf16 on CUDA. On a CPU, auto measures float32 and bf16 before the first
    step and uses the faster one; a resumed training keeps it."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = "auto"
    """Whether to use torch.compile; auto means on CUDA. On a CPU, auto uses it if there is a C++ compiler, the training
    takes longer than ten compilations, and compiled steps are measured to be faster; a resumed training keeps the
    choice. yes, no, true and false are accepted for on and off."""
    threads: int | None = Field(None, ge=1)
    """Number of CPU threads; None means one per core. A bit-exact resume requires the same number."""
    log_every_steps: int = Field(1, ge=1)
    """Number of steps between two metric points."""
    tensorboard: bool = True
    """Whether the metrics are also written as TensorBoard event files."""

    @model_validator(mode="after")
    def _batch_sizes_and_rates_fit(self) -> Self:
        if self.effective_batch_size % self.micro_batch_size:
            raise ValueError(
                f"effective_batch_size {self.effective_batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        initial = self.initial_batch_size
        if initial is not None and (initial % self.micro_batch_size or initial > self.effective_batch_size):
            raise ValueError(
                f"initial_batch_size {initial} is not a multiple of micro_batch_size {self.micro_batch_size} up to "
                f"effective_batch_size {self.effective_batch_size}"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        if self.matrix_learning_rate is not None and self.optimizer != "muon":
            raise ValueError(
                f"matrix_learning_rate {self.matrix_learning_rate} has no effect with optimizer {self.optimizer}; "
                "set it to null, or set optimizer to muon"
            )
        return self

    def batch_size_at(self, progress: float) -> int:
        """Return the number of sequences of an update when the share `progress` of the training is finished."""
        return next((size for size, end in self._growing_batches() if progress < end), self.effective_batch_size)

    @property
    def mean_batch_size(self) -> float:
        """The mean number of sequences per update, over all updates of the training."""
        growing, begin, mean = self._growing_batches(), 0.0, 0.0
        for size, end in growing:
            mean += size * (end - begin)
            begin = end
        return mean + self.effective_batch_size * (1.0 - begin)

    def _growing_batches(self) -> list[tuple[int, float]]:
        """Return (size, share of the training at its end) for each batch size below `effective_batch_size`."""
        size, sizes = self.initial_batch_size or self.effective_batch_size, []
        while size < self.effective_batch_size:
            sizes.append(size)
            size *= 2
        return [(size, self.batch_growth_ratio * (index + 1) / len(sizes)) for index, size in enumerate(sizes)]

    def fine_tuning_peak(self) -> float:
        """Return the learning rate at the peak of a fine-tuning: the explicit one, or a quarter of `learning_rate`.

        The quarter is that of GPT (Radford et al., 2018): 2.5e-4 for pretraining, 6.25e-5 for fine-tuning.
        """
        return self.learning_rate / 4 if self.fine_tuning_learning_rate is None else self.fine_tuning_learning_rate


class LMConfig(Section):
    """The configuration of a pretraining job."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="before")
    @classmethod
    def _follow_depth(cls, given: Any) -> Any:
        model = _given_fields(given.get("model")) if isinstance(given, Mapping) else None
        depth = None if model is None else whole_number(model.get("depth"))
        training = None if depth is None else _given_fields(given.get("training", {}))
        if depth is None or training is None:
            return given
        return {**given, "training": {**training_fields(depth, training), **training}}

    @model_validator(mode="after")
    def _vocabulary_has_the_size_of_the_model(self) -> Self:
        size, found = trained_size(self.data.tokenizer), self.model.vocab_size
        if size is None or found == size:
            return self
        if found != GPT2_SIZE:
            raise ValueError(
                f"model.vocab_size {found} is not the size of the vocabulary that data.tokenizer {self.data.tokenizer} "
                "names; leave model.vocab_size out"
            )
        object.__setattr__(self, "model", self.model.model_copy(update={"vocab_size": size}))
        return self

    def with_vocabulary(self, name: str, size: int) -> LMConfig:
        """Return the configuration of a training with an existing vocabulary that has this name and size.

        Raises ConfigError if `data.tokenizer` names another one to be trained, or if a trained vocabulary has another
        size than the model.
        """
        named = self.data.tokenizer
        if named not in (GPT2, name):
            raise ConfigError(
                f"data.tokenizer {named} differs from the vocabulary {name} of the checkpoint from which the training "
                "starts; leave data.tokenizer out"
            )
        if name == GPT2:
            return self
        if self.model.vocab_size not in (GPT2_SIZE, size):
            raise ConfigError(
                f"model.vocab_size {self.model.vocab_size} is not the size of the vocabulary {name} of the checkpoint "
                "from which the training starts; leave model.vocab_size out"
            )
        data = self.data.model_copy(update={"tokenizer": name})
        return self.model_copy(update={"data": data, "model": self.model.model_copy(update={"vocab_size": size})})


def _given_fields(section: object) -> Mapping[str, Any] | None:
    """Return the fields that a section of a configuration sets; None if it is no section."""
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, Mapping) else None
