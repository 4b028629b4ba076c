"""The arms: what is trained, with which budget, and what is varied in the tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.config import PROJECT_ROOT, merge
from common.config.depth import STRONGEST_DECAY, STRONGEST_DROPOUT
from common.config.yaml_text import read_mapping

Unit = Literal["tokens", "seconds"]
RATE_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
BATCHES = (8, 32)
"""Sequences per update."""
SEEDS = (11, 12, 13)
TUNING_SEED = 1
GPT2 = "gpt2"
OWN = "own"
"""Stands for the vocabulary that is trained on the text."""

_PLAIN: dict[str, Any] = {
    "model": {"dropout": 0.0},
    "training": {
        "min_learning_rate": 0.0,
        "warmup_ratio": 0.05,
        "weight_decay": 0.1,
        "modulation_fraction": 0.0,
    },
}
_UNGATED: dict[str, Any] = {"model": {"gates": False}, "training": {"modulation_fraction": 0.0}}
"""What the arms change in the presets, which have the gates that the controller needs; `modern-modulated` has both."""
_OF_A_RUN = {"model": ("name", "depth"), "training": ("epochs",)}
"""Settings of a preset that `bench.recipes.campaign` chooses for a run."""


def _preset(name: str) -> dict[str, Any]:
    """Return the sections `model` and `training` of a shipped preset."""
    values = read_mapping(PROJECT_ROOT / "configs/presets" / f"{name}.yaml")
    return {
        section: {field: value for field, value in values[section].items() if field not in dropped}
        for section, dropped in _OF_A_RUN.items()
    }


_MODERN = merge(_preset("lm-modern"), _UNGATED)
_MUON: dict[str, Any] = _preset("lm-modern")["training"]
_OWN_TEXT = merge(
    merge(_preset("lm-own-text"), _UNGATED),
    # What `depth: auto` chooses for one weight per byte of text.
    {"model": {"dropout": STRONGEST_DROPOUT}, "training": {"weight_decay": STRONGEST_DECAY}},
)


@dataclass(frozen=True)
class Arm:
    """One recipe."""

    name: str
    about: str
    settings: Mapping[str, Any]
    """Settings on top of those that all arms share, as in a configuration file."""
    unit: Unit = "tokens"
    """What limits a run: the tokens of the training, or its wall time."""
    share: float = 1.0
    """Share of the budget that a run gets."""
    rate: float = 4e-3
    """The middle of the learning rates that are tried."""
    peer: bool = False
    """Whether the GPT-2 of transformers is trained in place of our model."""
    vocabulary: str = OWN
    tuned_as: str | None = None
    """Name of the arm whose tuned learning rate and batch are used; None means that the arm is tuned itself."""


def _arm(name: str, about: str, *changes: Mapping[str, Any], **fields: Any) -> Arm:
    settings: Mapping[str, Any] = _PLAIN
    for change in changes:
        settings = merge(settings, change)
    return Arm(name, about, settings, **fields)


def _ablation(name: str, about: str, change: Mapping[str, Any]) -> Arm:
    return _arm(f"modern-{name}", f"modern, but {about}", _MODERN, change, share=0.6, tuned_as="modern")


def _model_ablation(field: str, value: object, about: str) -> Arm:
    return _ablation(field.replace("_", "-"), about, {"model": {field: value}})


def _own_ablation(name: str, about: str, change: Mapping[str, Any]) -> Arm:
    return _arm(f"own-text-{name}", f"own-text, but {about}", _OWN_TEXT, change, unit="seconds", tuned_as="own-text")


_LIST = [
    _arm("gpt2", "transformers' GPT-2, AdamW, cosine", peer=True),
    _arm("reference", "the reference architecture, AdamW, cosine"),
    _arm("reference-muon", "the reference architecture, Muon, wsd", {"training": _MUON}, share=0.6),
    _arm("modern", "modern architecture, Muon, wsd", _MODERN, share=0.6),
    _arm(
        "modern-adamw",
        "modern, but AdamW for all parameters",
        _MODERN,
        {"training": {"optimizer": "adamw"}},
        share=0.6,
    ),
    _ablation("cosine", "cosine", {"training": {"schedule": "cosine"}}),
    _ablation("linear", "linear", {"training": {"schedule": "linear"}}),
    _ablation("average", "an average of the weights", {"training": {"average_decay": 0.99}}),
    _ablation("decay-to-0", "weight decay decreases to 0", {"training": {"final_weight_decay": 0.0}}),
    _model_ablation("norm", "layernorm", "LayerNorm with weights"),
    _model_ablation("embedding_norm", False, "no norm of the embeddings"),
    _model_ablation("qk_norm", False, "no QK-norm"),
    _model_ablation("activation", "gelu", "GELU"),
    _model_ablation("bias", True, "biases"),
    _model_ablation("zero_init", False, "no projections that start at 0"),
    _model_ablation("logit_softcap", 15.0, "a soft cap of the logits"),
    _model_ablation("gates", True, "gates without modulated batches"),
    _ablation(
        "modulated",
        "gates and a tenth of the batches modulated",
        {"model": {"gates": True}, "training": {"modulation_fraction": 0.1}},
    ),
    _arm("adamw-decay-0.1", "the reference architecture, AdamW, weight decay 0.1", unit="seconds"),
    _arm("own-text", "modern, dropout, weight decay 0.8, average", _OWN_TEXT, unit="seconds"),
    _own_ablation("no-dropout", "no dropout", {"model": {"dropout": 0.0}}),
    _own_ablation("decay-0.1", "weight decay 0.1", {"training": {"weight_decay": 0.1}}),
    _own_ablation("decay-1.6", "weight decay 1.6", {"training": {"weight_decay": 1.6}}),
    _own_ablation("no-average", "no average of the weights", {"training": {"average_decay": None}}),
    _arm("vocabulary-own", "the reference with its own vocabulary, by wall time", unit="seconds"),
    _arm("vocabulary-gpt2", "the reference with GPT-2's vocabulary, by wall time", unit="seconds", vocabulary=GPT2),
]
ARMS = {arm.name: arm for arm in _LIST}
