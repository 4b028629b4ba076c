"""The configuration of a pretraining job: model, data, optimisation, checkpoints, evaluation.

`common.config.load_lm_config` loads it from a file such as `configs/base_config.yaml`. The defaults train a model with
30,623,057 parameters on TinyStories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from common.config.base import Section, on_or_off
from common.config.tokenizers import GPT2, GPT2_SIZE, trained_size
from common.errors import ConfigError
from common.files import path_problem, shortened
from tidal_client.wire.sampling import RepetitionPenalty, Temperature

MAX_NAME_LENGTH: Final = 128
MAX_VERSION_LENGTH: Final = 64
"""Largest numbers of characters of a model's name and version. With these limits, the names of all files and folders
that contain name and version, including temporary files and exports, have at most 255 bytes."""
_FILE_NAME_PART: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ModelConfig(Section):
    """The shape of a `common.model.TransformerLM`."""

    name: str = Field("transformer-lm", pattern=_FILE_NAME_PART, max_length=MAX_NAME_LENGTH)
    """Name of the model, which is part of the final file's name `{name}_v{version}.pth`: at most 128 letters, digits,
    `.`, `_` and `-`."""
    version: str = Field("1.0.0", pattern=_FILE_NAME_PART, max_length=MAX_VERSION_LENGTH)
    """Version of the model: at most 64 letters, digits, `.`, `_` and `-`; write a number such as 1.0 in quotes."""
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
        return self.model_dump(mode="json", exclude={"name", "version", "dropout"})

    @property
    def head_dim(self) -> int:
        """K, the width of an attention head."""
        return self.d_model // self.num_heads


MOST_SOURCE = 4096
"""Largest number of characters of the name of a corpus. It is the limit of Linux for paths; a name may be a path."""
MOST_TEXT_FIELD = 200
"""Largest number of characters of `text_field`, the name of a column."""


MOST_SOURCES = 64
"""Largest number of corpora of one training."""


class CorpusConfig(Section):
    """One corpus: what `common.data` needs to read it and to divide it into a training and a validation part.

    `DataConfig.corpora` returns it. The name of a token cache depends on exactly these fields, so a new field must not
    be in the dump while it has its default.
    """

    source: str
    validation_source: str | None
    validation_fraction: float
    text_field: str
    max_documents: int | None
    tokenizer: str


class WeightedCorpus(Section):
    """An entry of `data.sources`: one corpus and its share of the training."""

    source: str = Field(min_length=1, max_length=MOST_SOURCE)
    """The corpus, named like `data.source`."""
    weight: float = Field(1.0, gt=0, le=1e9)
    """Share of the training tokens that come from this corpus, relative to the weights of the other entries."""
    validation_source: str | None = Field(None, min_length=1, max_length=MOST_SOURCE)
    """Another corpus for the validation of this entry, as in `data.validation_source`."""
    text_field: str = Field("text", min_length=1, max_length=MOST_TEXT_FIELD)
    """Name of the text column, as in `data.text_field`."""
    max_documents: int | None = Field(None, ge=2)
    """Number of documents to use, from the start of this corpus; None means all."""

    @field_validator("source", "validation_source")
    @classmethod
    def _can_be_a_file(cls, name: str | None) -> str | None:
        return _checked_name(name)


class DataConfig(Section):
    """The text to train and validate on: one corpus (`source`) or several (`sources`)."""

    source: str | None = Field("roneneldan/TinyStories", max_length=MOST_SOURCE)
    """The corpus: `builtin:stories` (a procedural sample that ships with Tidal), the name of an uploaded dataset, the
    path of a .txt, .jsonl or .parquet file (may be gzipped), or owner/name of a dataset on the Hugging Face Hub. None
    if `sources` lists several corpora."""
    sources: tuple[WeightedCorpus, ...] = Field((), max_length=MOST_SOURCES)
    """Several corpora in place of `source`, as a list of entries with `source` and `weight`. Each corpus has its own
    validation part; the keys of an entry are listed below."""
    validation_source: str | None = Field(None, max_length=MOST_SOURCE)
    """Another corpus for validation, named like `source`. None means the validation part of `source`; if `source` has
    none, a share of its documents (`validation_fraction`)."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the documents that is held out for validation when a corpus has no validation part."""
    text_field: str = Field("text", min_length=1, max_length=MOST_TEXT_FIELD)
    """Name of the text column in .jsonl and .parquet files and Hugging Face datasets. Not used for uploaded datasets,
    which store the name of their column."""
    max_documents: int | None = Field(None, ge=2)
    """Number of documents to use, from the start of the corpus; None means all."""
    tokenizer: str = Field(GPT2, max_length=40)
    """The vocabulary: `gpt2`, or `train:N` to train a byte-level BPE of N entries (257 to 65,536, with
    `<|endoftext|>`) on the corpus, for example `train:4096`. A model that exists keeps the vocabulary it was trained
    with: a training that starts from its checkpoint, and every job that reads the corpus for it."""

    @field_validator("tokenizer")
    @classmethod
    def _is_a_tokenizer(cls, tokenizer: str) -> str:
        trained_size(tokenizer)
        return tokenizer

    @model_validator(mode="before")
    @classmethod
    def _sources_replace_the_default_source(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("sources") and "source" not in given:
            return {**given, "source": None}
        return given

    @field_validator("source", "validation_source")
    @classmethod
    def _can_be_a_file(cls, name: str | None) -> str | None:
        if name == "":
            raise ValueError("the name of the corpus is empty")
        return _checked_name(name)

    @model_validator(mode="after")
    def _one_corpus_or_several(self) -> Self:
        if not self.sources:
            if self.source is None:
                raise ValueError("there is no corpus; set source, or list several in sources")
            return self
        if self.source is not None:
            raise ValueError(
                f"source {shortened(self.source)} and sources exclude each other; move source into the list, or "
                "leave one of them out"
            )
        for name, unset in (("validation_source", None), ("text_field", "text"), ("max_documents", None)):
            if getattr(self, name) != unset:
                raise ValueError(f"{name} belongs to source; with sources, set it in the entries of the list")
        names = [entry.source for entry in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"sources lists {shortened(twice)} twice; list it once, with the sum of the weights")
        return self

    def corpora(self) -> tuple[CorpusConfig, ...]:
        """Return the settings of each corpus, in the order of `sources`."""
        entries = self.sources or (self,)
        return tuple(
            CorpusConfig(
                source=entry.source or "",
                validation_source=entry.validation_source,
                validation_fraction=self.validation_fraction,
                text_field=entry.text_field,
                max_documents=entry.max_documents,
                tokenizer=self.tokenizer,
            )
            for entry in entries
        )

    def names_same_text(self, other: DataConfig) -> bool:
        """Return whether both sections name the same corpora, whatever the weights and the vocabulary."""
        return self.model_copy(update={"tokenizer": other.tokenizer}).corpora() == other.corpora()

    def shares(self) -> tuple[float, ...]:
        """Return the share of the training tokens of each corpus. The sum is 1."""
        total = sum(entry.weight for entry in self.sources)
        return tuple(entry.weight / total for entry in self.sources) or (1.0,)


def _checked_name(name: str | None) -> str | None:
    if name is not None and (problem := path_problem(name)):
        raise ValueError(f"the name {shortened(name)} {problem}")
    return name


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
    micro_batch_size: int = Field(64, ge=1)
    """Number of sequences per forward and backward pass. Lower it if CUDA runs out of memory."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate at the peak of the cosine schedule."""
    min_learning_rate: float = Field(1e-6, ge=0)
    """Learning rate at the end of the cosine schedule."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Length of the linear learning-rate warm-up as a share of all steps; ignored if warmup_steps is set."""
    warmup_steps: int | None = Field(None, ge=0)
    """Length of the linear learning-rate warm-up in steps; None means that warmup_ratio applies."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay of AdamW, applied to matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay rate for the running average of the gradient."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's decay rate for the running average of the squared gradient."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a gradient with a larger norm is scaled down to it."""
    patience: int = Field(5, ge=1)
    """Number of consecutive validations without an improvement by min_delta after which training ends early."""
    min_delta: float = Field(1e-4, ge=0)
    """Smallest decrease of the validation loss, in nats, that counts as an improvement."""
    modulation_fraction: float = Field(0.1, ge=0, le=1)
    """Share of micro-batches in which the gates receive a random modulation; the other micro-batches have no
    modulation."""
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
    """Number format of the training; auto means bf16 on CUDA and float32 on a CPU."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = "auto"
    """Whether to use torch.compile; auto means on CUDA only. yes, no, true and false are accepted for on and off."""
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
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        return self

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
