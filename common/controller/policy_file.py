"""Loads policies from files: `load_policy(path)`.

A file can be the original's `rl_checkpoint_*.pth` (Tidal writes the same format), a bare state dict, or a checkpoint
folder of a controller training. Only tensors and plain values are unpickled. The distribution, the layer widths and
whether there is a cost critic or a normalisation follow from the tensors. The concentration limit, the deterministic
action and the modulation map come from the stored configuration; if there is none, they are those of the original
project. Name and digest of the vocabulary are stored, too. The optimiser and the schedules are not loaded, because only
training needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.checkpoint import load_policy_file
from common.checkpoint.vocabulary_file import META_KEY
from common.config import ModulationConfig, PolicyConfig, Range
from common.controller.modulation import DEFAULT_MODULATION
from common.controller.policy import GatingPolicy
from common.data.vocabulary import VocabularyLabel, gpt2_vocabulary
from common.errors import CheckpointError


def load_policy(path: str | Path, *, device: torch.device | str = "cpu") -> GatingPolicy:
    """Return the policy in `path`, in evaluation mode.

    Raises NotFoundError when the file does not exist, CheckpointError when it is damaged, would run code when it is
    loaded, or does not contain a policy.
    """
    content = load_policy_file(path)
    stored = content.get("config")
    config = stored if isinstance(stored, Mapping) else {}
    policy = policy_from_state_dict(content["agent_state_dict"], config, where=str(path)).to(device)
    policy.vocabulary = _vocabulary(content, str(path))
    return policy


def policy_from_state_dict(
    weights: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, *, where: str = "policy"
) -> GatingPolicy:
    """Return a GatingPolicy with these weights.

    `config` is a dump of an RLConfig or has the original's upper-case keys. `where` names the source in errors. Raises
    CheckpointError when the weights are not those of a policy.
    """
    first = weights.get("feature_extractor.1.weight")
    if first is None or first.dim() != 2:
        raise CheckpointError(
            f"{where}: contains no policy (feature_extractor.1.weight is missing); give a checkpoint of a controller"
        )
    config = config or {}
    try:
        policy = GatingPolicy(
            PolicyConfig(
                distribution="gaussian" if "actor_mean.0.weight" in weights else "beta",
                hidden_dim=first.shape[0],
                concentration_max=_concentration_max(config),
                normalise_observations="observation_mean" in weights,
                deterministic_action=_deterministic_action(config),
            ),
            cost_critic="cost_critic_head.0.weight" in weights,
            observation_dim=first.shape[1],
            modulation_config=_modulation(config),
        )
        policy.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{where}: the weights or settings do not fit a policy ({error}); give a checkpoint of a controller"
        ) from None
    return policy.eval()


def _vocabulary(content: Mapping[str, Any], where: str) -> VocabularyLabel:
    """Return the vocabulary with which the policy was trained. A file that names none is older, and means GPT-2's."""
    described = content.get(META_KEY)
    if described is None:
        return gpt2_vocabulary().label
    try:
        return VocabularyLabel(str(described["name"]), str(described["digest"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: does not describe its vocabulary ({error})") from error


def _concentration_max(config: Mapping[str, Any]) -> float:
    section = config.get("policy")
    if isinstance(section, Mapping) and "concentration_max" in section:
        return float(section["concentration_max"])
    return float(config.get("RL_BETA_CONCENTRATION_MAX", PolicyConfig().concentration_max))


def _deterministic_action(config: Mapping[str, Any]) -> Literal["mean", "mode"]:
    """Return the stored choice. A file without one is of the original project or older than the choice: the mode."""
    section = config.get("policy")
    stored = section.get("deterministic_action") if isinstance(section, Mapping) else None
    return "mean" if stored == "mean" else "mode"


def _modulation(config: Mapping[str, Any]) -> ModulationConfig:
    section = config.get("modulation")
    if isinstance(section, Mapping):
        return ModulationConfig.model_validate(section)
    default = DEFAULT_MODULATION

    def span(key: str, fallback: Range) -> Range:
        name = f"RL_MODULATION_{key}"
        return Range(
            low=config.get(f"{name}_MIN", fallback.low),
            high=config.get(f"{name}_MAX", fallback.high),
        )

    return ModulationConfig(
        base_temperature=config.get("RL_BASE_TEMPERATURE", default.base_temperature),
        base_repetition_penalty=config.get("RL_BASE_REPETITION_PENALTY", default.base_repetition_penalty),
        temperature=span("TEMP", default.temperature),
        repetition_penalty=span("PENALTY", default.repetition_penalty),
        top_k=span("TOP_K", default.top_k),
        top_p=span("TOP_P", default.top_p),
    )
