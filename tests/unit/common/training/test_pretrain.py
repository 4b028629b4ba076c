"""Pretraining follows its configuration and writes all documented files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from common.artifacts import ArtifactStore
from common.checkpoint import CheckpointManager, load_model
from common.checkpoint.manager import read_info
from common.config import LMConfig
from common.data import CorpusLoader, open_corpus
from common.errors import ConfigError, TidalError
from common.model import TransformerLM
from common.training.hooks import Outcome, StopRequest
from common.training.pretrain import pretrain

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
MANY = 10_000


def test_a_training_completes_with_model_results_and_metrics(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder()
    config = make_config(training={"shuffle": "chunks"})
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED

    losses = hooks.series("Losses/Total")
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[1] == pytest.approx(math.log(50257), abs=0.1)
    assert losses[6] < losses[1]
    assert list(hooks.series("Losses/Validation")) == [0, 2, 4, 6]
    for name in ("Learning Rate", "Iterations/Second", "Epoch/Progress", "Gradient Norm", "Tokens/Second"):
        assert list(hooks.series(name)) == [1, 2, 3, 4, 5, 6], name

    results = json.loads((tmp_path / "evaluation_results/evaluation_results.json").read_text())
    assert results["validation_loss"] == hooks.series("Losses/Validation")[6]
    assert results["perplexity"] == pytest.approx(math.exp(results["validation_loss"]))
    assert results["initial_validation_loss"] == hooks.series("Losses/Validation")[0]
    [sample] = results["samples"]
    assert (sample["prompt"], sample["tokens"]) == ("the cat", 3)
    assert sample["generated"] and not sample["generated"].startswith("the cat")
    assert hooks.artifacts == [
        ("tiny_v1.0.0.pth", "model"),
        ("tiny_v1.0.0.safetensors", "model"),
        ("evaluation_results/evaluation_results.json", "evaluation"),
    ]
    raw = torch.load(tmp_path / "tiny_v1.0.0.pth", weights_only=True)
    model = load_model(tmp_path / "tiny_v1.0.0.safetensors")
    assert model.gates_trained
    assert all(torch.equal(raw[name], tensor) for name, tensor in model.state_dict().items())
    assert hooks.progress[0] == (0, 6)
    assert hooks.save is None


def test_complete_right_after_a_pause_was_obeyed_is_no_completion(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = recorder()
    asked: list[StopRequest] = []

    def requested_stop() -> StopRequest | None:
        if "training" not in hooks.phases:
            return None
        # The first call makes the trainer leave the step, the second one makes it pause. Later calls must not count.
        asked.append(StopRequest.PAUSE if len(asked) < 2 else StopRequest.COMPLETE)
        return asked[-1]

    monkeypatch.setattr(hooks, "requested_stop", requested_stop)
    assert pretrain(make_config(), tmp_path, hooks, data_dir=data_dir) is Outcome.PAUSED
    assert hooks.artifacts == []
    assert [info.step for info in hooks.checkpoints] == [0]


def test_one_update_equals_adamw_on_the_mean_gradient_of_the_whole_batch(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "model": {"dropout": 0.0},
        "training": {"max_steps": 1, "modulation_fraction": 0.0, "warmup_steps": 1, "max_grad_norm": 0.01},
    }
    config = make_config(**sections)
    pretrain(config, tmp_path, recorder(), data_dir=data_dir)

    torch.manual_seed(config.training.seed)
    model = TransformerLM(config.model)
    corpus = open_corpus(config.data, data_dir=data_dir)
    loader = CorpusLoader(corpus, context_length=16, batch_size=6, seed=config.training.seed)
    input_ids, targets = loader.next_batch()
    functional.cross_entropy(model(input_ids).flatten(0, 1), targets.flatten()).backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    assert norm > 0.01
    trained = load_model(tmp_path / "tiny_v1.0.0.safetensors").state_dict()
    for name, parameter in model.named_parameters():
        expected = parameter.detach().clone()
        if parameter.grad is not None:
            gradient = parameter.grad * (0.01 / (norm + 1e-6))
            if parameter.dim() >= 2:
                expected *= 1 - 0.01 * 0.1
            # in Adam's first step, the corrected moments are the gradient and its square
            expected -= 0.01 * gradient / (gradient.abs() + 1e-8)
        moved = (parameter.grad is None) or (parameter.grad.abs() * (0.01 / norm) > 1e-6)
        torch.testing.assert_close(
            torch.where(torch.as_tensor(moved), trained[name], expected), expected, atol=2e-4, rtol=1e-4, msg=name
        )


def test_every_sequence_is_used_once_per_epoch_with_a_smaller_last_update(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(training={"max_steps": None, "epochs": 2, "effective_batch_size": 16, "micro_batch_size": 4})
    hooks = recorder()
    pretrain(config, tmp_path, hooks, data_dir=data_dir)
    corpus = open_corpus(config.data, data_dir=data_dir)
    chunks = len(corpus.train) // 17
    assert chunks % 16, "the corpus of this test must not divide evenly"
    steps = 2 * math.ceil(chunks / 16)
    seen = hooks.series("Tokens/Seen")
    assert len(seen) == steps
    assert seen[steps] == 2 * chunks * 16
    assert hooks.series("Epoch/Progress")[steps] == 2.0
    assert len(hooks.progress) == 2 * math.ceil(chunks / 4) + steps + 1


def test_complete_ends_training_now_and_still_writes_the_final_model(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder(StopRequest.COMPLETE, after=10)  # before the second micro-batch of the third update
    assert pretrain(make_config(), tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert list(hooks.series("Losses/Total")) == [1, 2]
    assert (tmp_path / "tiny_v1.0.0.pth").is_file()
    results = json.loads((tmp_path / "evaluation_results/evaluation_results.json").read_text())
    assert results["steps"] == 2


@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        (StopRequest.PAUSE, Outcome.PAUSED),
        (StopRequest.STOP, Outcome.STOPPED),
        (StopRequest.DRAIN, Outcome.DRAINED),
    ],
)
def test_a_stop_writes_a_checkpoint_and_no_model(
    request_: StopRequest, outcome: Outcome, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder(request_, after=5)
    assert pretrain(make_config(), tmp_path, hooks, data_dir=data_dir) is outcome
    assert [info.step for info in hooks.checkpoints] == [1]
    assert not list(tmp_path.glob("*.pth"))


def test_training_stops_early_when_validation_no_longer_improves(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "training": {"patience": 2, "min_delta": 50.0, "max_steps": None, "epochs": 50},
        "evaluation": {"every_steps": 1},
    }
    hooks = recorder()
    assert pretrain(make_config(**sections), tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert [details["step"] for details in hooks.named("early_stop")] == [3]


def test_max_seconds_ends_as_if_complete(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(training={"max_steps": None, "epochs": 100_000, "max_seconds": 1.0})
    hooks = recorder()
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    rates = list(hooks.series("Learning Rate").values())
    assert 0 < len(rates) < 10_000
    assert rates[-1] < 0.3 * max(rates)


def test_checkpoints_are_written_by_steps_and_pruned(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder()
    config = make_config(checkpoint={"every_steps": 2, "keep_last": 1}, evaluation={"every_steps": MANY})
    pretrain(config, tmp_path, hooks, data_dir=data_dir)
    steps = [info.step for info in hooks.checkpoints]
    assert steps == sorted(steps) and {2, 6} <= set(steps) <= {2, 4, 6}, "4 may be skipped while 2 is being written"
    assert hooks.before == len(steps)
    remaining = [info.name for info in CheckpointManager(tmp_path / "checkpoints", keep_last=1).list()]
    assert remaining == hooks.kept == [hooks.checkpoints[-1].name]


def test_the_checkpoint_of_the_lowest_validation_loss_stays_and_is_named(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    # This learning rate ruins the model after the warm-up, so an early validation is the best one.
    config = make_config(
        training={"max_steps": 8, "learning_rate": 3.0, "warmup_steps": 6, "patience": 100},
        evaluation={"every_steps": 1},
        checkpoint={"every_steps": 1, "keep_last": 1},
    )
    hooks = recorder()
    assert pretrain(config, tmp_path / "spoilt", hooks, data_dir=data_dir) is Outcome.COMPLETED
    losses = hooks.series("Losses/Validation")
    lowest = min((step for step in losses if step > 0), key=losses.__getitem__)
    assert lowest < 8, losses
    store = ArtifactStore(tmp_path)
    best = store.resolve("spoilt/best")
    assert read_info(best).step == lowest
    assert read_info(best).meta["validation_loss"] == losses[lowest]
    assert [file.name for file in store.checkpoint_files("spoilt") if file.best] == [f"checkpoints/{best.name}"]
    assert sorted(read_info(path.parent).step for path in tmp_path.glob("spoilt/checkpoints/*/manifest.json")) == [
        lowest,
        8,
    ]
    assert hooks.kept[0] == best.name


def test_a_final_model_that_is_the_best_is_recorded_as_best(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    pretrain(make_config(), tmp_path / "good", recorder(), data_dir=data_dir)
    assert ArtifactStore(tmp_path).resolve("good/best").name == "tiny_v1.0.0.safetensors"


def test_a_loss_that_is_not_finite_fails_with_advice(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(training={"learning_rate": 1e30, "warmup_steps": 0, "max_steps": None, "epochs": 20})
    with pytest.raises(TidalError, match=r"Lower training\.learning_rate") as raised:
        pretrain(config, tmp_path, recorder(), data_dir=data_dir)
    assert raised.value.code == "training_diverged"


def test_a_vocabulary_too_small_for_the_tokenizer_is_refused(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="use 50257"):
        pretrain(make_config(model={"vocab_size": 300}), tmp_path, recorder(), data_dir=data_dir)


def test_bfloat16_trains_nearly_the_same_as_float32(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    losses = []
    for precision in ("float32", "bf16"):
        config = make_config(model={"dropout": 0.0}, training={"precision": precision, "max_steps": 3})
        hooks = recorder()
        assert pretrain(config, tmp_path / precision, hooks, data_dir=data_dir) is Outcome.COMPLETED
        losses.append(hooks.series("Losses/Total"))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]


def test_half_precision_without_cuda_is_refused(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(training={"precision": "fp16"})
    with pytest.raises(ConfigError, match=r"training\.precision"):
        pretrain(config, tmp_path, recorder(), data_dir=data_dir)


def test_a_stop_while_the_corpus_is_read_leaves_no_files(
    make_config: Config, recorder: Recorders, tmp_path: Path
) -> None:
    hooks = recorder(StopRequest.STOP, in_phase="loading data")
    outcome = pretrain(make_config(), tmp_path / "run", hooks, data_dir=tmp_path / "fresh")
    assert outcome is Outcome.STOPPED
    assert not (tmp_path / "run").exists()
