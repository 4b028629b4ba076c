"""Converts configurations of the original project (flat, upper-case keys) to Tidal's form (nested, lower-case keys).

`convert` maps all keys that have an equivalent. For every other key it returns a note with the reason, so that no key
is dropped silently. The command `tidal import-config` reads and writes the files.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from common.config.base import on_or_off
from common.config.lm import LMConfig
from common.config.loader import build
from common.config.rl import RLConfig
from common.errors import ConfigError

ConfigKind = Literal["lm", "rl"]

LM_KEYS = {
    "MODEL_VERSION": "model.version",
    "MODEL_NAME": "model.name",
    "VOCAB_SIZE": "model.vocab_size",
    "EMBED_DIM": "model.d_model",
    "NUM_TRANSFORMER_BLOCKS": "model.num_layers",
    "NUM_ATTENTION_HEADS": "model.num_heads",
    "FFN_HIDDEN_DIM": "model.ffn_dim",
    "DROPOUT": "model.dropout",
    "MAX_CONTEXT_LENGTH": "model.context_length",
    "GATE_DIM": "model.gate_dim",
    "DATASET": "data.source",
    "TOKENIZER": "data.tokenizer",
    "VALIDATION_SPLIT_RATIO": "data.validation_fraction",
    "NUM_EPOCHS": "training.epochs",
    "DESIRED_BATCH_SIZE": "training.effective_batch_size",
    "BATCH_SIZE": "training.micro_batch_size",
    "MAX_GRAD_NORM": "training.max_grad_norm",
    "PATIENCE": "training.patience",
    "MIN_DELTA": "training.min_delta",
    "DEVICE": "training.device",
    "TORCH_COMPILE": "training.compile",
    "EVAL_BATCH_SIZE": "evaluation.batch_size",
}
"""{key of the original: key of `LMConfig`}."""

SCHEDULER_KEYS = {
    "BASE_LR": "training.learning_rate",
    "MIN_LR": "training.min_learning_rate",
    "WARMUP_RATIO": "training.warmup_ratio",
    "WARMUP_STEPS": "training.warmup_steps",
}
"""{key below LEARNING_RATE_SCHEDULER: key of `LMConfig`}."""

LM_UNUSED = {
    "NUM_CPU_CORE_WORKERS": "tokens come from a memory-mapped cache, which needs no loader processes",
    "LOG_DIRECTORY": "logs go to the experiment's folder",
    "ENABLE_CONSOLE_LOGGING": "set TIDAL_LOG_LEVEL instead",
    "TRAINING_MODEL_ARTIFACT_CACHE_FREQUENCY": "it counts epochs; set checkpoint.every_steps or every_seconds instead",
    "TENSORBOARD_TAGS": "the names of metrics are fixed",
}
"""{key of the original without an equivalent: reason}, for pretraining."""

RL_KEYS = {
    "RL_AGENT_TYPE": "policy.distribution",
    "RL_HIDDEN_DIM": "policy.hidden_dim",
    "RL_BETA_CONCENTRATION_MAX": "policy.concentration_max",
    "RL_LEARNING_RATE": "ppo.learning_rate",
    "RL_GAMMA": "ppo.gamma",
    "RL_GAE_LAMBDA": "ppo.gae_lambda",
    "RL_CLIP_EPSILON": "ppo.clip_range",
    "RL_ENTROPY_COEF": "ppo.entropy_coef",
    "RL_ENTROPY_COEF_FINAL": "ppo.entropy_coef_final",
    "RL_ENTROPY_SCHEDULE": "ppo.entropy_schedule",
    "RL_POLICY_ENTROPY_TARGET": "ppo.policy_entropy_target",
    "RL_ENTROPY_HOMEOSTASIS_RELEASE_RATE": "ppo.entropy_release_rate",
    "RL_ENTROPY_HOMEOSTASIS_DECAY_RATE": "ppo.entropy_decay_rate",
    "RL_ENTROPY_COEF_MIN": "ppo.entropy_coef_min",
    "RL_ENTROPY_COEF_MAX": "ppo.entropy_coef_max",
    "RL_DIVERSITY_HOMEOSTASIS_TARGET": "diversity_homeostasis.target",
    "RL_DIVERSITY_HOMEOSTASIS_RELEASE_RATE": "diversity_homeostasis.release_rate",
    "RL_DIVERSITY_HOMEOSTASIS_DECAY_RATE": "diversity_homeostasis.decay_rate",
    "RL_DIVERSITY_WEIGHT_MIN": "diversity_homeostasis.weight_min",
    "RL_DIVERSITY_WEIGHT_MAX": "diversity_homeostasis.weight_max",
    "RL_CONSTRAINT_MODE": "constraint.mode",
    "RL_DIVERSITY_CONSTRAINT_THRESHOLD": "constraint.diversity_threshold",
    "RL_LAGRANGE_MULTIPLIER_LR": "constraint.multiplier_rate",
    "RL_LAGRANGE_MULTIPLIER_INIT": "constraint.multiplier_init",
    "RL_VALUE_COEF": "ppo.value_coef",
    "RL_MAX_GRAD_NORM": "ppo.max_grad_norm",
    "RL_ROLLOUT_STEPS": "ppo.rollout_steps",
    "RL_NUM_EPOCHS": "ppo.epochs",
    "RL_BATCH_SIZE": "ppo.minibatch_size",
    "RL_TOTAL_TIMESTEPS": "ppo.total_steps",
    "RL_MAX_EPISODE_LENGTH": "episode.max_length",
    "RL_PROMPT_MIN_LENGTH": "episode.prompt_min_tokens",
    "RL_PROMPT_MAX_LENGTH": "episode.prompt_max_tokens",
    "RL_BASE_TEMPERATURE": "modulation.base_temperature",
    "RL_BASE_REPETITION_PENALTY": "modulation.base_repetition_penalty",
    "RL_MODULATION_TEMP_MIN": "modulation.temperature.low",
    "RL_MODULATION_TEMP_MAX": "modulation.temperature.high",
    "RL_MODULATION_TOP_P_MIN": "modulation.top_p.low",
    "RL_MODULATION_TOP_P_MAX": "modulation.top_p.high",
    "RL_MODULATION_PENALTY_MIN": "modulation.repetition_penalty.low",
    "RL_MODULATION_PENALTY_MAX": "modulation.repetition_penalty.high",
    "RL_MODULATION_TOP_K_MIN": "modulation.top_k.low",
    "RL_MODULATION_TOP_K_MAX": "modulation.top_k.high",
    "RL_REWARD_PERPLEXITY_WEIGHT": "reward.perplexity_weight",
    "RL_REWARD_DIVERSITY_WEIGHT": "reward.diversity_weight",
    "RL_REWARD_SAMPLING_WEIGHT": "reward.sampling_weight",
    "RL_REWARD_REPETITION_WEIGHT": "reward.repetition_weight",
    "RL_REWARD_COHERENCE_WEIGHT": "reward.coherence_weight",
    "RL_PERPLEXITY_CLIP": "reward.perplexity_clip",
    "RL_ENTROPY_TARGET": "reward.entropy_target",
    "RL_SAMPLING_ENTROPY_TARGET": "reward.sampling_entropy_target",
    "RL_EVAL_EPISODES": "ablation.prompts",
    "RL_CHECKPOINT_INTERVAL": "checkpoint_every_iterations",
    "DEVICE": "device",
}

_GATES = "controller training does not train the gates"
RL_UNUSED = {
    "RL_TOP_K": "the original never used it",
    "RL_EMA_ALPHA": "the smoothing of episode rewards is fixed at 0.05",
    "RL_EVAL_INTERVAL": "every iteration is logged, and an ablation follows the training",
    "RL_LOG_INTERVAL": "every iteration is logged",
    "RL_METRICS_INTERVAL": "every iteration is logged",
    "RL_GATE_LR": _GATES,
    "RL_GATE_ENTROPY_WEIGHT": _GATES,
}
RL_FIXED: dict[str, tuple[Any, str]] = {
    "RL_OBSERVATION_DIM": (64, "the observation always has 64 values"),
    "RL_ACTION_DIM": (1, "the action is always one modulation"),
    "RL_UNFREEZE_DYNAMIC_GATES": (False, _GATES),
}
"""{key: (the only supported value, reason)}; `convert` returns a note for other values."""


def convert(mapping: Mapping[str, Any]) -> tuple[ConfigKind, dict[str, Any], list[str]]:
    """Return the kind of the configuration ("lm" or "rl"), Tidal's nested values, and notes for the user.

    The values contain only keys that `mapping` sets. Written to a YAML file, they can be read by `load_lm_config` or
    `load_rl_config`. Raises ConfigError if the configuration has no key of the original, or if a value is invalid.
    """
    known = {**LM_KEYS, **LM_UNUSED, **RL_KEYS, **RL_UNUSED, **RL_FIXED, "LEARNING_RATE_SCHEDULER": ""}
    if not any(key in known for key in mapping):
        raise ConfigError(
            "this is not a configuration of the original project, because it has none of the upper-case keys of "
            "that project, such as BATCH_SIZE"
        )
    if any(str(key).startswith("RL_") for key in mapping):
        return "rl", *_convert_rl(mapping)
    return "lm", *_convert_lm(mapping)


def _convert_lm(mapping: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    notes: list[str] = []
    scheduler = mapping.get("LEARNING_RATE_SCHEDULER", {})
    if not isinstance(scheduler, Mapping):
        raise ConfigError(f"LEARNING_RATE_SCHEDULER: expected a mapping, got {scheduler!r}")
    _place(mapping, LM_KEYS, LM_UNUSED, {"LEARNING_RATE_SCHEDULER"}, values, notes)
    _place(scheduler, SCHEDULER_KEYS, {}, set(), values, notes, where="LEARNING_RATE_SCHEDULER.")
    _change(values, "training.compile", on_or_off)
    gate_inputs = _get(values, "model.gate_dim", 1)
    if isinstance(gate_inputs, int) and gate_inputs > 1:
        notes.append(
            f"GATE_DIM {gate_inputs} was changed to 1; `tidal migrate-checkpoint` converts checkpoints accordingly"
        )
        _put(values, "model.gate_dim", 1)
    _round_effective_batch(values, notes)
    notes.append(
        "the original pretrains with Adam, without weight decay and without modulation; set training.weight_decay and "
        "training.modulation_fraction to 0 to train in the same way"
    )
    return _checked(LMConfig, values), notes


def _convert_rl(mapping: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    notes: list[str] = []
    _place(mapping, RL_KEYS, RL_UNUSED, set(RL_FIXED), values, notes)
    for key, (only, reason) in RL_FIXED.items():
        if key in mapping and _read_switch(only, mapping[key]) != only:
            notes.append(f"{key} {mapping[key]!r} left out: {reason}")
    _put(values, "policy.deterministic_action", "mode")
    _put(values, "ppo.num_envs", 1)
    notes.append("ppo.num_envs is 1, as in the original; 32 with minibatch_size 1024 trains many times faster")
    return _checked(RLConfig, values), notes


def _place(
    mapping: Mapping[str, Any],
    places: Mapping[str, str],
    unused: Mapping[str, str],
    handled: set[str],
    values: dict[str, Any],
    notes: list[str],
    where: str = "",
) -> None:
    for key, value in mapping.items():
        if key in places:
            if value is not None:
                _put(values, places[key], value)
        elif key in unused:
            notes.append(f"{where}{key} {value!r} left out: {unused[key]}")
        elif key not in handled:
            near = difflib.get_close_matches(str(key).upper(), [*places, *unused, *handled], n=1, cutoff=0.6)
            hint = f"; the nearest known key is {near[0]}" if near else ""
            notes.append(f"{where}{key} {value!r} left out: unknown key{hint}")


def _read_switch(expected: Any, value: Any) -> Any:
    """If `expected` is a boolean, convert yes, no, on and off to booleans. Return other values unchanged."""
    if isinstance(expected, bool):
        return {"on": True, "off": False}.get(on_or_off(value), value)
    return value


def _round_effective_batch(values: dict[str, Any], notes: list[str]) -> None:
    default = LMConfig().training
    micro = _get(values, "training.micro_batch_size", default.micro_batch_size)
    effective = _get(values, "training.effective_batch_size", default.effective_batch_size)
    if isinstance(micro, int) and isinstance(effective, int) and micro > 0 and effective % micro:
        rounded = max(1, effective // micro) * micro
        _put(values, "training.effective_batch_size", rounded)
        notes.append(f"DESIRED_BATCH_SIZE {effective} became {rounded}, a multiple of BATCH_SIZE {micro}")


def _checked(section: type[LMConfig] | type[RLConfig], values: dict[str, Any]) -> dict[str, Any]:
    return build(section, values, where="converted configuration").model_dump(mode="json", exclude_unset=True)


def _put(values: dict[str, Any], place: str, value: Any) -> None:
    *path, last = place.split(".")
    for name in path:
        values = values.setdefault(name, {})
    values[last] = value


def _get(values: Mapping[str, Any], place: str, default: Any) -> Any:
    for name in place.split("."):
        if name not in values:
            return default
        values = values[name]
    return values


def _change(values: dict[str, Any], place: str, change: Callable[[Any], Any]) -> None:
    missing = object()
    value = _get(values, place, missing)
    if value is not missing:
        _put(values, place, change(value))
