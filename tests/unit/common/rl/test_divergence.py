"""A controller training that diverges stops before its state is saved."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager, load_policy_file
from common.config import RLConfig
from common.errors import CheckpointError, DivergedError
from common.rl import train
from common.rl.export import write_policy
from common.rl.ppo import PPOBatch, ppo_update
from common.rl.schedules import PidMultiplier, diversity_homeostasis, entropy_homeostasis
from common.training.hooks import Outcome, SavedCheckpoint
from tests.unit.common.rl.toys import toy_config
from tests.unit.common.rl.trainings import Listener, run_training, weights_of
from tests.unit.non_finite import non_finite_files

torch.set_num_threads(1)


class Withdrawals(Listener):
    """Hooks that also record which checkpoints were withdrawn."""

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        self.withdrawn = list(names), None if newest is None else newest.name


def config(**ppo: Any) -> RLConfig:
    """Return a configuration of six iterations with a checkpoint after each iteration."""
    return toy_config(ppo={"total_steps": 144, **ppo}, checkpoint_every_iterations=1)


def spoil(monkeypatch: pytest.MonkeyPatch, iteration: int, how: Callable[[dict[str, Any]], None]) -> None:
    """Let `how` change the arguments of the PPO update of one iteration, counted from 0."""
    original, calls = train.ppo_update, iter(range(100))

    def update(policy: Any, optimizer: Any, batch: PPOBatch, **options: Any) -> dict[str, float]:
        arguments = {"policy": policy, "batch": batch, **options}
        if next(calls) == iteration:
            how(arguments)
        return original(arguments.pop("policy"), optimizer, arguments.pop("batch"), **arguments)

    monkeypatch.setattr(train, "ppo_update", update)


def explode(arguments: dict[str, Any]) -> None:
    """Scale the weights so much that the policy's outputs are not finite from the second minibatch on."""
    with torch.no_grad():
        for parameter in arguments["policy"].parameters():
            parameter.mul_(1e30)


def infinite_gradient(arguments: dict[str, Any]) -> None:
    """Make one gradient infinite while the loss stays finite."""
    first = next(arguments["policy"].parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, math.inf))


@pytest.mark.parametrize("how", [explode, infinite_gradient])
def test_training_stops_before_the_update_and_resumes_from_the_advised_checkpoint(
    how: Callable[[dict[str, Any]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3, how)
    hooks = Withdrawals()
    with pytest.raises(DivergedError, match=r"in iteration 4: .* Lower ppo\.learning_rate") as raised:
        run_training(tmp_path / "run", config(), hooks)
    monkeypatch.undo()
    assert non_finite_files(tmp_path / "run") == []
    assert hooks.artifacts == [] and not list(tmp_path.glob("run/rl_*"))
    found = re.search(r"resume from run/checkpoints/(\S+),", raised.value.message)
    assert found is not None
    # Iteration 4 was not finite from its first minibatch, so a training that resumes just before it would diverge
    # again.
    assert found[1] == hooks.withdrawn[1] == "iter-000000002"
    assert any(not math.isfinite(value) for value in hooks.points[-1][1].values()), (
        "the archive shows where training ended"
    )
    outcome, after = run_training(tmp_path / "run", config())
    assert outcome is Outcome.COMPLETED
    assert dict(after.events)["resumed"]["checkpoint"] == "iter-000000002"
    run_training(tmp_path / "whole", config())
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert non_finite_files(tmp_path / "run") == []


def test_a_rate_that_ruins_the_policy_leaves_only_finite_files(tmp_path: Path) -> None:
    run_training(tmp_path, toy_config(ppo={"total_steps": 48}, checkpoint_every_iterations=1))
    (tmp_path / "rl_checkpoint_final.pth").unlink()
    for folder in tmp_path.glob("checkpoints/iter-000000002*"):
        folder.rename(tmp_path / f".{folder.name}")
    with pytest.raises(DivergedError, match=r"resume from .*iter-000000001"):
        run_training(tmp_path, config(learning_rate=1e30))
    assert non_finite_files(tmp_path) == []
    assert not (tmp_path / "rl_checkpoint_final.pth").exists()


def test_the_emergency_exit_saves_nothing_in_the_middle_of_an_iteration_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent: list[Any] = []

    class Lending(Withdrawals):
        def offer_checkpoint(self, save: Any) -> None:
            lent.append(save)

    spoil(monkeypatch, 1, explode)
    with pytest.raises(DivergedError):
        run_training(tmp_path, config(), Lending())
    assert lent[0]() is None


def test_an_ablation_whose_reward_is_not_finite_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.rl import ablation

    def spoiled(model: Any, policies: Any, *rest: Any, **options: Any) -> ablation.Episodes:
        episodes = original(model, policies, *rest, **options)
        return episodes._replace(values=episodes.values * (math.nan if len(policies) < 10 else 1.0))

    original = ablation.play_episodes
    monkeypatch.setattr(ablation, "play_episodes", spoiled)
    with pytest.raises(DivergedError, match="the reward of the learned policy in the ablation is nan"):
        run_training(tmp_path, toy_config(checkpoint_every_iterations=100))
    assert not (tmp_path / "ablation_results.json").exists()
    assert non_finite_files(tmp_path) == []


def test_no_policy_is_written_or_read_that_is_not_finite(tmp_path: Path) -> None:
    run_training(tmp_path)
    path = tmp_path / "rl_checkpoint_final.pth"
    stored = torch.load(path, weights_only=True)
    next(iter(stored["agent_state_dict"].values()))[:] = math.nan
    torch.save(stored, path)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_policy_file(path)

    class State:
        policy = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)

    torch.nn.init.constant_(State.policy.weight, math.inf)
    with pytest.raises(DivergedError, match="the weights hold NaN or infinity"):
        write_policy(State(), tmp_path / "other")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    from common.controller import GatingPolicy

    policy = GatingPolicy()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    rows = torch.full((4,), math.nan)
    batch = PPOBatch(torch.zeros(4, 64), torch.full((4, 1), 0.5), torch.zeros(4), rows, torch.zeros(4))
    optimizer = torch.optim.Adam(policy.parameters())
    options: dict[str, Any] = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.0, "max_grad_norm": 0.5}
    with pytest.raises(DivergedError, match="the PPO loss is nan"):
        ppo_update(
            policy, optimizer, batch, epochs=1, minibatch_size=4, generator=torch.Generator().manual_seed(0), **options
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())


def test_adaptive_coefficients_refuse_values_that_are_not_finite() -> None:
    rates = {"integral": 0.1, "proportional": 0.0, "derivative": 0.0}
    with pytest.raises(DivergedError, match="violation of the constraint"):
        PidMultiplier(0.5, 0.5).update(math.nan, **rates)
    with pytest.raises(DivergedError, match="the Lagrange multiplier"):
        PidMultiplier(0.5, math.inf).update(0.5, **rates)
    with pytest.raises(DivergedError):
        entropy_homeostasis(0.1, math.nan)
    with pytest.raises(DivergedError):
        diversity_homeostasis(math.nan, 0.5)


def test_time_is_reported_as_the_share_of_its_limit(tmp_path: Path) -> None:
    shares: list[float] = []

    class Timed(Listener):
        def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
            super().report_progress(step, total_steps, time_share)
            shares.append(time_share)

    run_training(tmp_path, toy_config(max_seconds=0.3, ppo={"total_steps": 10**9}), Timed())
    assert shares == sorted(shares) and shares[-1] > 0.9


def test_no_checkpoint_of_a_controller_holds_nan(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1, prefix="iter")
    with pytest.raises(DivergedError):
        manager.save(1, {"a": torch.tensor(math.inf)}, {"optimizer": {}}, meta={"kind": "rl"})
