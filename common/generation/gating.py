"""Who picks the modulation of each token: nobody, a constant, chance, or a policy.

A gating is called once per step with a `StepContext` of B rows and returns modulations (B, 1), or None for the mode
`none`. `random` and `fixed(m)` are also the baselines of the ablation; `neutral` is `fixed(0.5)`. Leaves out: what
the modulation does to the logits (`common.controller.modulation`, `sampling`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from common.controller import OBSERVATION_DIM, GatingPolicy, TokenHistory, build_observations
from common.errors import InvalidInputError

NEUTRAL_MODULATION = 0.5


class GatingMode(StrEnum):
    """The modes of a request."""

    NONE = "none"
    FIXED = "fixed"
    RANDOM = "random"
    LEARNED = "learned"


class StepContext(NamedTuple):
    """What is known before the next token of B rows.

    logits (B, V) raw and hidden (B, D) at the last position; step (B,) tokens generated so far; previous_action (B,),
    0 at the start; uniform (B,) in [0, 1), each row's own random number for this step.
    """

    history: TokenHistory
    logits: Tensor
    hidden: Tensor
    step: Tensor
    episode_length: int | Tensor
    previous_action: Tensor
    uniform: Tensor


class Gating(Protocol):
    """Modulations (B, 1) in [0, 1] for the next token, or None for no modulation."""

    def __call__(self, context: StepContext) -> Tensor | None: ...


class NoGating:
    """Mode `none`."""

    def __call__(self, context: StepContext) -> None:
        """No modulation."""


class FixedGating:
    """Mode `fixed`: one constant for all tokens."""

    def __init__(self, modulation: float) -> None:
        if not 0.0 <= modulation <= 1.0:
            raise InvalidInputError(f"modulation {modulation} is outside 0..1")
        self.modulation = modulation

    def __call__(self, context: StepContext) -> Tensor:
        """The constant for every row."""
        return torch.full((len(context.uniform), 1), self.modulation, device=context.uniform.device)


class RandomGating:
    """Mode `random`: uniform in [0, 1), anew for every token."""

    def __call__(self, context: StepContext) -> Tensor:
        """Each row's own number."""
        return context.uniform[:, None]


class LearnedGating:
    """Mode `learned`: a policy on the current observation, by default its deterministic action.

    With `sample` the action is drawn from the policy's distribution by `generator` for all rows together.
    """

    def __init__(self, policy: GatingPolicy, *, sample: bool = False, generator: torch.Generator | None = None) -> None:
        if policy.observation_dim != OBSERVATION_DIM:
            raise InvalidInputError(
                f"the controller wants {policy.observation_dim} observations; generation has {OBSERVATION_DIM}"
            )
        self.policy = policy
        self.sample = sample
        self.generator = generator

    def __call__(self, context: StepContext) -> Tensor:
        """The policy's actions."""
        observation = build_observations(
            context.history,
            context.logits,
            context.hidden,
            step=context.step,
            episode_length=context.episode_length,
            previous_action=context.previous_action,
        )
        return self.policy.act(observation, deterministic=not self.sample, generator=self.generator).action


def make_gating(
    mode: GatingMode | str,
    *,
    modulation: float = NEUTRAL_MODULATION,
    policy: GatingPolicy | None = None,
    sample_actions: bool = False,
    generator: torch.Generator | None = None,
) -> Gating:
    """The gating of a request. Raises InvalidInputError for an unknown mode, or `learned` without a policy."""
    mode = parse_mode(mode)
    if mode is GatingMode.NONE:
        return NoGating()
    if mode is GatingMode.FIXED:
        return FixedGating(modulation)
    if mode is GatingMode.RANDOM:
        return RandomGating()
    if policy is None:
        raise InvalidInputError("gating mode learned needs a controller checkpoint; name one, or choose another mode")
    return LearnedGating(policy, sample=sample_actions, generator=generator)


def parse_mode(mode: GatingMode | str) -> GatingMode:
    """The gating mode of this name. Raises InvalidInputError for an unknown one."""
    try:
        return GatingMode(mode)
    except ValueError:
        raise InvalidInputError(f"gating mode {str(mode)!r} is not one of {', '.join(GatingMode)}") from None
