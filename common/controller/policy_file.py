"""Policies from files: `load_policy(path)`.

Reads the original's `rl_checkpoint_*.pth` (and ours, which have the same form), a bare state dict, and a checkpoint
folder of a controller training. Nothing is unpickled but tensors and plain values. The shape
(family, widths, cost critic) follows from the tensors; cap and modulation map come from the stored configuration,
where there is one. Leaves out: optimiser and schedules, which only training needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.checkpoint import load_policy_file
from common.config import ModulationConfig, PolicyConfig, Range
from common.controller.modulation import DEFAULT_MODULATION
from common.controller.policy import GatingPolicy
from common.errors import CheckpointError


def load_policy(path: str | Path, *, device: torch.device | str = "cpu") -> GatingPolicy:
    """The policy in `path`, in evaluation mode.

    Raises NotFoundError when there is no such file, CheckpointError when it is damaged, would run code when
    loaded, or holds something else than a policy.
    """
    content = load_policy_file(path)
    stored = content.get("config")
    config = stored if isinstance(stored, Mapping) else {}
    return policy_from_state_dict(content["agent_state_dict"], config, where=str(path)).to(device)


def policy_from_state_dict(
    weights: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, *, where: str = "policy"
) -> GatingPolicy:
    """A GatingPolicy with these weights; `config` is a dump of an RLConfig, or the original's upper-case keys.

    Raises CheckpointError when the weights are not those of a policy.
    """
    first = weights.get("feature_extractor.1.weight")
    if first is None or first.dim() != 2:
        raise CheckpointError(f"{where}: holds no policy (feature_extractor.1.weight is missing)")
    config = config or {}
    try:
        policy = GatingPolicy(
            PolicyConfig(
                distribution="gaussian" if "actor_mean.0.weight" in weights else "beta",
                hidden_dim=first.shape[0],
                concentration_max=_concentration_max(config),
            ),
            cost_critic="cost_critic_head.0.weight" in weights,
            observation_dim=first.shape[1],
            modulation_config=_modulation(config),
        )
        policy.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: does not fit a policy ({error})") from None
    return policy.eval()


def _concentration_max(config: Mapping[str, Any]) -> float:
    section = config.get("policy")
    if isinstance(section, Mapping) and "concentration_max" in section:
        return float(section["concentration_max"])
    return float(config.get("RL_BETA_CONCENTRATION_MAX", PolicyConfig().concentration_max))


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
