"""An interrupted training gives exactly the result of an uninterrupted one, or reports why it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.checkpoint import CheckpointManager, load_model
from common.config import LMConfig
from common.errors import ConfigError
from common.training.hooks import Outcome, SavedCheckpoint, StopRequest
from common.training.pretrain import pretrain
from tests.unit.damage import DAMAGES, damage

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]

MANY = 10_000
CALLS_PER_STEP = 4
"""Number of calls of `report_progress` per step: one for each of three micro-batches, and one for the step."""


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    """Return an empty dictionary that all tests of this file share. `reference` fills it when it is first used."""
    return {}


def final_weights(directory: Path) -> dict[str, Tensor]:
    return load_model(directory / "tiny_v1.0.0.safetensors").state_dict()


@pytest.fixture
def reference(
    uninterrupted: dict[str, Any],
    make_config: Config,
    recorder: Recorders,
    data_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Return the weights and losses of an uninterrupted training. Tests compare resumed trainings with them."""
    if not uninterrupted:
        directory, hooks = tmp_path_factory.mktemp("reference"), recorder()
        assert pretrain(make_config(), directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
        uninterrupted.update(weights=final_weights(directory), losses=hooks.series("Losses/Total"))
    return uninterrupted


def assert_same_bits(reference: dict[str, Any], directory: Path) -> None:
    found = final_weights(directory)
    assert found.keys() == reference["weights"].keys()
    for name, expected in reference["weights"].items():
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("after", [1, 3, 4, 6, 11, 23])
def test_a_pause_at_any_micro_batch_resumes_exactly(
    after: int, reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    first = recorder(StopRequest.PAUSE, after=after)
    assert pretrain(make_config(), tmp_path, first, data_dir=data_dir) is Outcome.PAUSED
    stopped_at = first.checkpoints[-1].step
    assert stopped_at == after // CALLS_PER_STEP
    second = recorder()
    assert pretrain(make_config(), tmp_path, second, data_dir=data_dir) is Outcome.COMPLETED
    assert_same_bits(reference, tmp_path)
    losses = second.series("Losses/Total")
    assert min(losses) == stopped_at + 1
    assert losses == {step: loss for step, loss in reference["losses"].items() if step > stopped_at}
    assert not second.named("resume_inexact")
    assert [*first.series("Losses/Validation"), *second.series("Losses/Validation")] == [0, 2, 4, 6]


def test_a_training_stopped_repeatedly_equals_an_uninterrupted_one(
    reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    for after in (5, 1, 4, 4):
        pretrain(make_config(), tmp_path, recorder(StopRequest.DRAIN, after=after), data_dir=data_dir)
    assert pretrain(make_config(), tmp_path, recorder(), data_dir=data_dir) is Outcome.COMPLETED
    assert_same_bits(reference, tmp_path)


def test_a_training_killed_after_a_timed_checkpoint_resumes_exactly(
    reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    def die(calls: int) -> None:
        if calls == 12:
            raise KeyboardInterrupt

    config = make_config(checkpoint={"every_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, tmp_path, recorder(on_progress=die), data_dir=data_dir)
    pretrain(config, tmp_path, recorder(), data_dir=data_dir)
    assert_same_bits(reference, tmp_path)


def test_a_checkpoint_by_another_thread_during_a_step_resumes_exactly(
    reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    taken: list[SavedCheckpoint | None] = []

    def write_final(calls: int) -> None:
        if calls == 11:  # two of the three micro-batches of the third update are done
            taken.append(hooks.save())
            raise KeyboardInterrupt  # simulates the end of the process

    hooks = recorder(on_progress=write_final)
    with pytest.raises(KeyboardInterrupt):
        pretrain(make_config(), tmp_path, hooks, data_dir=data_dir)
    assert taken[0] is not None
    assert taken[0].step == 2
    successor = recorder()
    pretrain(make_config(), tmp_path, successor, data_dir=data_dir)
    reported = successor.checkpoints[0]
    assert (reported.name, reported.sha256) == (taken[0].name, taken[0].sha256), "it had not been reported before"
    assert_same_bits(reference, tmp_path)


@pytest.mark.parametrize("phase", ["evaluation"])
def test_paused_during_the_final_evaluation_resumes_there(
    phase: str, reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(evaluation={"every_steps": MANY})
    leaving = recorder()

    def write_final(calls: int) -> None:
        if calls == 18:
            leaving.request, leaving.in_phase = StopRequest.PAUSE, "saved all"

    leaving.on_progress = write_final
    original = leaving.checkpoint_saved

    def saved(info: SavedCheckpoint) -> None:
        original(info)
        leaving.phases.append("saved all")

    leaving.checkpoint_saved = saved
    assert pretrain(config, tmp_path, leaving, data_dir=data_dir) is Outcome.PAUSED
    assert not list(tmp_path.glob("*.pth"))
    last = recorder()
    assert pretrain(config, tmp_path, last, data_dir=data_dir) is Outcome.COMPLETED
    assert not last.series("Losses/Total")
    assert_same_bits(reference, tmp_path)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_an_event(
    how: str, reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(checkpoint={"every_steps": 2})
    pretrain(config, tmp_path, recorder(StopRequest.PAUSE, after=5 * CALLS_PER_STEP + 1), data_dir=data_dir)
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=3)
    newest = manager.list()[-1]
    before = [info.step for info in manager.list()][:-1]
    damage(newest.path, how)
    hooks = recorder()
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert [details["checkpoint"] for details in hooks.named("checkpoint_skipped")] == [newest.name]
    assert hooks.named("resumed")[0]["step"] == before[-1]
    assert not (tmp_path / "checkpoints" / newest.name).exists() or newest.name in hooks.kept, "it was renamed"
    assert_same_bits(reference, tmp_path)


def test_a_different_number_of_threads_is_reported(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    pretrain(make_config(), tmp_path, recorder(StopRequest.PAUSE, after=5), data_dir=data_dir)
    hooks = recorder(StopRequest.PAUSE, after=5)
    pretrain(make_config(training={"threads": 2}), tmp_path, hooks, data_dir=data_dir)
    assert hooks.named("resume_inexact")[0]["reasons"] == ["threads was 1, is 2"]


def test_another_experiments_checkpoint_is_continued_in_a_new_one(
    reference: dict[str, Any], make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    pretrain(make_config(), tmp_path / "old", recorder(StopRequest.STOP, after=8), data_dir=data_dir)
    source = CheckpointManager(tmp_path / "old/checkpoints", keep_last=1).list()[-1].path
    hooks = recorder()
    pretrain(make_config(), tmp_path / "new", hooks, data_dir=data_dir, initial_checkpoint=source)
    assert hooks.named("resumed")[0]["step"] == 2
    assert_same_bits(reference, tmp_path / "new")


def test_initial_weights_start_a_training_without_history(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    pretrain(make_config(), tmp_path / "old", recorder(), data_dir=data_dir)
    weights = tmp_path / "old/tiny_v1.0.0.pth"
    hooks = recorder()
    pretrain(make_config(), tmp_path / "new", hooks, data_dir=data_dir, initial_checkpoint=weights)
    assert min(hooks.series("Losses/Total")) == 1
    assert hooks.series("Losses/Total")[1] < 10.7
    with pytest.raises(ConfigError, match="d_model 8 instead of 16"):
        pretrain(
            make_config(model={"d_model": 16}),
            tmp_path / "other",
            recorder(),
            data_dir=data_dir,
            initial_checkpoint=weights,
        )
