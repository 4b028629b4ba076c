"""Controller training learns, is reproducible, obeys stop requests and resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import REWARD_COMPONENTS
from common.errors import TidalError
from common.rl import export, train_policy
from common.rl.export import FINAL_POLICY
from common.training.hooks import Outcome, StopRequest
from tests.unit.common.rl.toys import END, toy_config, toy_corpus, toy_model
from tests.unit.common.rl.trainings import Listener, comparable, run_training, weights_of

torch.set_num_threads(1)

LOGGED = {
    "episode_reward",
    "policy_loss",
    "value_loss",
    "cost_value_loss",
    "entropy",
    "entropy_coef",
    "modulation_mean",
    "explained_variance",
    *(f"reward/{name}" for name in REWARD_COMPONENTS),
    "diversity_weight",
    "lagrange_multiplier",
    "cost",
    "approx_kl",
    "clip_fraction",
    "steps_per_second",
}


def test_a_run_reports_everything_and_leaves_policy_points_and_ablation(tmp_path: Path) -> None:
    outcome, hooks = run_training(tmp_path)
    assert outcome is Outcome.COMPLETED
    assert [step for step, _ in hooks.points] == [24, 48, 72, 96]
    assert set(hooks.points[-1][1]) >= LOGGED
    assert hooks.progress[-1] == (96, 96)
    assert [step for step, _ in hooks.progress] == sorted(step for step, _ in hooks.progress)
    assert (hooks.checkpoints[0].name, hooks.checkpoints[0].step) == ("iter-000000002", 48)
    assert hooks.artifacts == [FINAL_POLICY, "ablation_results.json"]
    evaluations = ["evaluation", "training"] * 2
    assert hooks.phases == ["preparing", "verifying checkpoints", "training", *evaluations, "checkpoint", "ablation"]
    stored = torch.load(tmp_path / FINAL_POLICY, weights_only=True)
    assert set(stored) == {"agent_state_dict", "optimizer_state_dict", "global_step", "config", "vocabulary"}
    assert stored["global_step"] == 96
    assert stored["config"]["RL_GAMMA"] == 0.99
    points = json.loads((tmp_path / "rl_metrics" / "rl_training_metrics.json").read_text())["points"]
    assert [point["step"] for point in points] == [24, 48, 72, 96]
    assert json.loads((tmp_path / "ablation_results.json").read_text())["policies"]["learned"]["episodes"] == 7


def test_entropy_coefficient_and_learning_rate_follow_their_schedules(tmp_path: Path) -> None:
    _, hooks = run_training(tmp_path)
    coefficients = [values["entropy_coef"] for _, values in hooks.points]
    rates = [values["learning_rate"] for _, values in hooks.points]
    assert coefficients == pytest.approx([0.01, 0.015, 0.02, 0.025])
    assert rates == pytest.approx([3e-4 * (1 - 0.9 * share) for share in (0, 0.25, 0.5, 0.75)])


def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(tmp_path: Path, uninterrupted: Path) -> None:
    _, first = run_training(tmp_path / "first")
    _, second = run_training(tmp_path / "second")
    _, third = run_training(tmp_path / "third", toy_config(seed=7))
    assert comparable(first) == comparable(second)
    assert comparable(first) != comparable(third)
    a, b = weights_of(uninterrupted), weights_of(tmp_path / "second")
    assert all(torch.equal(a[name], b[name]) for name in a)
    results = [(run / "ablation_results.json").read_text() for run in (uninterrupted, tmp_path / "second")]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted training. Tests compare interrupted trainings with it."""
    directory = tmp_path_factory.mktemp("whole")
    run_training(directory)
    return directory


@pytest.mark.parametrize(
    ("asked", "request_"),
    [(3, StopRequest.PAUSE), (9, StopRequest.STOP), (14, StopRequest.DRAIN), (30, StopRequest.PAUSE)],
)
def test_a_stopped_training_resumes_exactly(
    tmp_path: Path, uninterrupted: Path, asked: int, request_: StopRequest
) -> None:
    outcome, before = run_training(tmp_path / "parts", hooks=Listener(request_, asked))
    assert outcome.value == {"pause": "paused", "stop": "stopped", "drain": "drained"}[request_.value]
    assert not (tmp_path / "parts" / FINAL_POLICY).exists()
    outcome, after = run_training(tmp_path / "parts")
    assert outcome is Outcome.COMPLETED
    assert ("resumed" in [name for name, _ in after.events]) and "resume_inexact" not in [n for n, _ in after.events]
    assert [step for step, _ in before.points + after.points] == [24, 48, 72, 96]
    whole, parts = weights_of(uninterrupted), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    texts = [(run / "ablation_results.json").read_text() for run in (uninterrupted, tmp_path / "parts")]
    assert texts[0] == texts[1]


def test_every_file_is_written_after_a_check_of_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Asked(Listener):
        def wait_while_suspended(self) -> None:
            seen.append("asked")

        def before_checkpoint(self) -> None:
            seen.append("checkpoint")

    def noted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def write(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, write)

    exports = ("write_policy", "write_points", "write_ablation_results")
    for name in exports:
        noted(export, name)
    hooks = Asked()
    assert run_training(tmp_path, hooks=hooks)[0] is Outcome.COMPLETED
    before = [(seen[i - 1], name) for i, name in enumerate(seen) if name in exports]
    assert before == [("asked", name) for name in exports]
    assert seen.count("checkpoint") == len(hooks.checkpoints) > 0


def test_complete_ends_early_with_policy_and_ablation(tmp_path: Path) -> None:
    outcome, hooks = run_training(tmp_path, hooks=Listener(StopRequest.COMPLETE, 12))
    assert outcome is Outcome.COMPLETED
    assert [step for step, _ in hooks.points] == [24]
    assert (tmp_path / FINAL_POLICY).exists()
    assert (tmp_path / "ablation_results.json").exists()


def test_a_stop_in_the_ablation_is_obeyed_and_training_is_not_repeated(tmp_path: Path) -> None:
    class DuringAblation(Listener):
        def requested_stop(self) -> StopRequest | None:
            return StopRequest.PAUSE if "ablation" in self.phases else None

    outcome, _ = run_training(tmp_path, hooks=DuringAblation())
    assert outcome is Outcome.PAUSED
    assert not (tmp_path / "ablation_results.json").exists()
    outcome, hooks = run_training(tmp_path)
    assert outcome is Outcome.COMPLETED
    assert hooks.points == []
    assert (tmp_path / "ablation_results.json").exists()


def test_a_checkpoint_may_be_taken_in_the_middle_of_a_rollout(tmp_path: Path, uninterrupted: Path) -> None:
    class Killed(Exception):
        pass

    class Interrupting(Listener):
        def offer_checkpoint(self, save: Any) -> None:
            self.save = save

        def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
            super().report_progress(step, total_steps, time_share)
            if len(self.progress) == 13:
                assert self.save().step == 24
                raise Killed

    with pytest.raises(Killed):
        run_training(tmp_path / "parts", hooks=Interrupting())
    run_training(tmp_path / "parts")
    whole, parts = weights_of(uninterrupted), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_different_corpus_makes_the_resume_inexact_and_is_reported(tmp_path: Path) -> None:
    run_training(tmp_path, hooks=Listener(StopRequest.PAUSE, 12))
    hooks = Listener()
    train_policy(toy_config(), toy_model(), toy_corpus(seed=5), tmp_path, hooks, end_token=END)
    details = dict(hooks.events)["resume_inexact"]
    assert details["reasons"] == ["corpus was toy-0, is toy-5"]


def test_time_limits_end_training_as_complete(tmp_path: Path) -> None:
    outcome, hooks = run_training(tmp_path, toy_config(max_seconds=1e-6, ppo={"total_steps": 10**9}))
    assert outcome is Outcome.COMPLETED
    assert len(hooks.points) == 1, "one iteration, so that the policy has learned something"


@pytest.mark.parametrize(("target", "direction"), [(0.05, -1), (3.4, 1)])
def test_the_policy_learns_the_modulation_that_the_reward_favours(
    tmp_path: Path, target: float, direction: int
) -> None:
    # The reward depends only on how close the sampling entropy is to `target`. A target near 0 favours a low
    # modulation, and a target near ln 30 = 3.4 a high one.
    config = toy_config(
        reward={
            "perplexity_weight": 0,
            "diversity_weight": 0,
            "repetition_weight": 0,
            "coherence_weight": 0,
            "sampling_weight": 1,
            "sampling_entropy_target": target,
        },
        ppo={
            "total_steps": 16 * 24 * 16,
            "num_envs": 16,
            "rollout_steps": 24,
            "epochs": 4,
            "minibatch_size": 96,
            "learning_rate": 3e-3,
            "entropy_coef": 0.0,
            "entropy_coef_final": 0.0,
        },
        checkpoint_every_iterations=1000,
    )
    _, hooks = run_training(tmp_path, config)
    first, last = hooks.points[0][1], hooks.points[-1][1]
    assert (last["modulation_mean"] - first["modulation_mean"]) * direction > 0.15
    assert last["step_reward"] > first["step_reward"]
    assert last["episode_reward"] > first["episode_reward"]
    results = json.loads((tmp_path / "ablation_results.json").read_text())
    assert results["paired"]["learned_minus_fixed"]["total"]["ci_low"] > 0
    assert results["paired"]["learned_minus_random"]["total"]["ci_low"] > 0


def test_a_loss_that_is_not_finite_ends_the_training_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TidalError, match=r"Lower ppo\.learning_rate") as caught:
        run_training(tmp_path, toy_config(ppo={"learning_rate": 1e30}))
    assert caught.value.code == "training_diverged"
