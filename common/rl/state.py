"""The complete state of a controller training, from which it can be resumed exactly.

A training is resumed at the boundary between two iterations. At each boundary, `mark` copies the environment and the
random states; the policy changes only inside `take_iteration`, under a lock. A checkpoint that is written during a
rollout therefore holds the state of the last boundary, and a resumed training repeats the rollout exactly. Saving is in
`common.training.resumable`, the loop in `common.rl.train`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from common.checkpoint import CheckpointInfo, CheckpointWriter, Score, TrainingSnapshot
from common.checkpoint.vocabulary_file import META_KEY
from common.config import RLConfig
from common.controller import GatingPolicy
from common.errors import CheckpointError
from common.rl.controls import Controls
from common.rl.environment import DecodingEnvironment
from common.rl.normalisation import RewardScale, RunningMoments
from common.rl.rollout import EpisodeMean
from common.rl.schedules import PidMultiplier
from common.training.resumable import Resumable, environment_differences

ADAM_EPSILON = 1e-5
"""Adam's epsilon, as is usual for PPO. With torch's default of 1e-8, tiny gradients cause full-size steps."""


@dataclass
class ControllerCounters:
    """The progress of a controller training."""

    iteration: int = 0
    """Finished iterations; an iteration is a rollout and its update."""
    step: int = 0
    """Transitions in all finished iterations."""
    seconds: float = 0.0
    """Training time in seconds over all attempts."""
    finished: bool = False
    """True once the last iteration is finished. Only the policy file and the ablation then remain."""
    best_evaluation: float | None = None
    """Highest reward of an evaluation so far; None before the first one."""
    episode: EpisodeMean = field(default_factory=EpisodeMean)


class ControllerState(Resumable):
    """The state of a controller training: policy, optimiser, environment, random states, counters, adapted
    coefficients, running statistics and metrics."""

    NUMBER = "iteration"

    def __init__(
        self,
        config: RLConfig,
        policy: GatingPolicy,
        environment: DecodingEnvironment,
        writer: CheckpointWriter,
        *,
        origin: dict[str, Any],
    ) -> None:
        """Mark the initial state.

        `origin` holds plain values that identify the inputs of the training: corpus digest, language model, …
        """
        optimizer = torch.optim.Adam(policy.parameters(), lr=config.ppo.learning_rate, eps=ADAM_EPSILON)
        super().__init__(policy, optimizer, writer)
        self.config = config
        self.policy = policy
        self.environment = environment
        device = environment.device
        self.action_random = torch.Generator(device).manual_seed(config.seed + 2)
        self.order_random = torch.Generator().manual_seed(config.seed + 3)
        self.counters = ControllerCounters()
        self.controls = Controls.initial(config)
        self.observation_moments = RunningMoments(policy.observation_dim, device)
        self.reward_scale = RewardScale(config.ppo.num_envs, config.ppo.gamma, device)
        self.points: list[dict[str, float]] = []
        """The reported metrics, one mapping per iteration."""
        self._origin = {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": device.type,
            **origin,
        }
        self.mark()

    def take_iteration(self, update: Callable[[], dict[str, float]], transitions: int) -> dict[str, float]:
        """Run `update`, which changes the policy and returns its metrics; count the iteration and mark the state.

        If `update` raises, it may have changed only a part of the policy, so no further checkpoint is written.
        """
        with self._lock:
            try:
                point = update()
            except BaseException:
                self._leaving = True
                raise
            self.points.append({"step": self.counters.step + transitions, **point})
            self.counters.iteration += 1
            self.counters.step += transitions
            self.mark()
        return point

    def finish(self) -> None:
        """Record in the marked state that training has ended."""
        with self._lock:
            self.counters.finished = True
            self.mark()

    def save_in_background(self, *, evaluation: float | None = None) -> None:
        """Copy the marked state to host memory and submit it to the writer, unless it is already written or submitted.

        With `evaluation` (a reward), the state is the best so far and is always submitted.
        """
        self._save_in_background(None if evaluation is None else Score("evaluation reward", evaluation))

    def restore(self, info: CheckpointInfo) -> list[str]:
        """Load a checkpoint. Return the reasons why training cannot continue bit-exactly from it, if any.

        Raises CheckpointError if the checkpoint is damaged or belongs to another training.
        """
        device = self.environment.device
        weights, state = self.writer.manager.load(info, "cpu")
        try:
            self.policy.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            counters = state["counters"]
            self.counters = ControllerCounters(**{**counters, "episode": EpisodeMean(**counters["episode"])})
            self.points = list(state["points"])
            self.environment.load_state_dict(state["environment"])
            # A checkpoint without these parts is older than them.
            if "controls" in state:
                controls = state["controls"]
                self.controls = Controls(**{**controls, "multiplier": PidMultiplier(**controls["multiplier"])})
                self.observation_moments.load_state_dict(state["observation_moments"])
                self.reward_scale.load_state_dict(state["reward_scale"])
            self.order_random.set_state(state["order_random"])
            before = state["origin"]
            if before["device"] == device.type:
                self.action_random.set_state(state["action_random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{info.path}: does not fit this training ({error})") from error
        self.mark()
        self.writer.adopt(info, self._key())
        return environment_differences(before, self._origin)

    def _copy(self) -> dict[str, Any]:
        return {
            "counters": asdict(self.counters),
            "controls": asdict(self.controls),
            "observation_moments": self.observation_moments.state_dict(),
            "reward_scale": self.reward_scale.state_dict(),
            "environment": self.environment.state_dict(),
            "action_random": self.action_random.get_state(),
            "order_random": self.order_random.get_state(),
            "points": list(self.points),
        }

    def _describe(
        self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any], score: Score | None, *, copied: bool
    ) -> TrainingSnapshot:
        counters = self._marked["counters"]
        return TrainingSnapshot(
            number=counters["iteration"],
            step=counters["step"],
            key=self._key(),
            weights=weights,
            state={**self._marked, "optimizer": optimizer, "origin": self._origin},
            meta={
                "kind": "rl",
                "global_step": counters["step"],
                "finished": counters["finished"],
                "config": self.config.model_dump(mode="json"),
                META_KEY: asdict(self.policy.vocabulary),
            },
            score=score,
        )
