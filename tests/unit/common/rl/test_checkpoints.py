"""A controller training keeps its best iteration, skips damaged checkpoints, and reports an inexact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.artifacts.best import read_best
from common.checkpoint import CheckpointManager
from common.checkpoint.manager import read_info
from common.training.hooks import StopRequest
from tests.unit.common.rl.toys import toy_config
from tests.unit.common.rl.trainings import Listener, run_training, weights_of
from tests.unit.damage import DAMAGES, damage

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted training, whose weights a resumed training must reproduce."""
    directory = tmp_path_factory.mktemp("whole")
    run_training(directory)
    return directory


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over(how: str, tmp_path: Path, uninterrupted: Path) -> None:
    for asked in (12, 12):  # each of the two attempts leaves a checkpoint
        run_training(tmp_path, hooks=Listener(StopRequest.PAUSE, asked))
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=3, prefix="iter")
    newest = manager.latest()
    assert newest is not None and len(manager.list()) == 2
    damage(newest.path, how)
    _, hooks = run_training(tmp_path)
    assert [name for name, _ in hooks.events][:2] == ["checkpoint_skipped", "resumed"]
    whole, parts = weights_of(uninterrupted), weights_of(tmp_path)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_different_number_of_threads_is_reported(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # an earlier test may have changed the number of threads
    run_training(tmp_path, hooks=Listener(StopRequest.PAUSE, 12))
    torch.set_num_threads(2)
    try:
        _, hooks = run_training(tmp_path, hooks=Listener(StopRequest.PAUSE, 1))
    finally:
        torch.set_num_threads(1)
    assert dict(hooks.events)["resume_inexact"]["reasons"] == ["threads was 1, is 2"]


def test_the_iteration_of_the_highest_evaluation_reward_stays_and_is_named(tmp_path: Path) -> None:
    config = toy_config(ppo={"total_steps": 24 * 8}, checkpoint_every_iterations=1, checkpoint_keep_last=1)
    _, hooks = run_training(tmp_path, config)
    rewards = {
        step: values["evaluation/step_reward"] for step, values in hooks.points if "evaluation/step_reward" in values
    }
    assert len(rewards) == 8
    best = read_best(tmp_path / "checkpoints")
    assert best is not None and best.value == max(rewards.values())
    assert rewards[best.step] == best.value
    remaining = {read_info(path.parent).step for path in tmp_path.glob("checkpoints/*/manifest.json")}
    assert remaining == {8, best.step // 24}
