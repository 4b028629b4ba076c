"""Samples over the steps are durable and comparable, and do not change the training."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import load_model
from common.checkpoint.manager import CheckpointManager
from common.config import LMConfig
from common.disk import Shortage
from common.errors import DiskFullError, DivergedError, StorageError
from common.model import TransformerLM
from common.training import sample_history
from common.training.evaluation import generate_samples
from common.training.hooks import Outcome, StopRequest
from common.training.pretrain import pretrain

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
FILE = "evaluation_results/samples.jsonl"
EVERY_TWO = {"samples_every_steps": 2, "prompts": ["the cat", "a dog"]}


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / FILE).read_text(encoding="utf-8").splitlines()]


def test_samples_follow_the_steps_and_leave_the_training_unchanged(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    plain, sampled = recorder(), recorder()
    assert pretrain(make_config(), tmp_path / "plain", plain, data_dir=data_dir) is Outcome.COMPLETED
    config = make_config(evaluation=EVERY_TWO, checkpoint={"every_steps": 1, "keep_last": 9})
    assert pretrain(config, tmp_path / "sampled", sampled, data_dir=data_dir) is Outcome.COMPLETED
    for series in ("Losses/Total", "Losses/Validation", "Gradient Norm"):
        assert sampled.series(series) == plain.series(series)
    assert not (tmp_path / "plain" / FILE).exists()
    found = rows(tmp_path / "sampled")
    assert [row["step"] for row in found] == [2, 4, 6]
    assert [sample["prompt"] for sample in found[0]["samples"]] == ["the cat", "a dog"]
    assert sampled.phases.count("sampling") == 2, "the last line contains the samples of the final evaluation"
    results = json.loads((tmp_path / "sampled/evaluation_results/evaluation_results.json").read_text())
    assert found[-1]["samples"] == results["samples"]
    # The weights that the checkpoint of a step contains give the samples of this step.
    manager = CheckpointManager(tmp_path / "sampled/checkpoints", keep_last=9)
    checkpoint = next(info for info in manager.list() if info.step == 4)
    assert found[1]["samples"] == generate_samples(load_model(checkpoint.path), config.evaluation)


@pytest.mark.parametrize("after", [3, 8, 9, 11, 17])
def test_a_resumed_training_has_the_rows_of_an_uninterrupted_one(
    after: int, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(evaluation=EVERY_TWO)
    assert pretrain(config, tmp_path / "whole", recorder(), data_dir=data_dir) is Outcome.COMPLETED
    first = recorder(StopRequest.PAUSE, after=after)
    assert pretrain(config, tmp_path / "paused", first, data_dir=data_dir) is Outcome.PAUSED
    # A crash may leave rows of steps after the checkpoint, and an incomplete row.
    (tmp_path / "paused/evaluation_results").mkdir(exist_ok=True)
    with (tmp_path / "paused" / FILE).open("a") as file:
        file.write('{"step": 5, "samples": []}\n{"step": 6, "sam')
    hooks = recorder()
    assert pretrain(config, tmp_path / "paused", hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert rows(tmp_path / "paused") == rows(tmp_path / "whole")
    assert not hooks.named("resume_inexact")
    weights = [load_model(tmp_path / name / "tiny_v1.0.0.safetensors").state_dict() for name in ("whole", "paused")]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


def test_a_stop_request_ends_the_sampling_and_the_row_is_written_after_the_resume(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(evaluation=EVERY_TWO)
    first = recorder(StopRequest.PAUSE, in_phase="sampling")
    assert pretrain(config, tmp_path, first, data_dir=data_dir) is Outcome.PAUSED
    assert first.checkpoints[-1].step == 2 and not (tmp_path / FILE).exists()
    assert pretrain(config, tmp_path, recorder(), data_dir=data_dir) is Outcome.COMPLETED
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6]


def test_a_full_disk_makes_the_training_wait_with_its_samples(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, refused = sample_history._append, []

    def refuse_once(path: Path, line: bytes) -> None:
        if not refused:
            refused.append(path)
            raise DiskFullError(f"{path}: cannot be written (No space left on device)")
        append(path, line)

    monkeypatch.setattr(sample_history, "_append", refuse_once)
    monkeypatch.setattr("common.training.disk_wait.RETRY_SECONDS", 0.05)
    hooks = recorder()
    assert pretrain(make_config(evaluation=EVERY_TWO), tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert isinstance(hooks.waits[0], Shortage) and len(hooks.named("disk_wait_ended")) == 1
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6]


def test_logits_that_are_not_finite_end_the_training_as_diverged(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sample_history.generate_samples

    def spoiled(model: TransformerLM, *others: Any, **options: Any) -> Any:
        with torch.no_grad():
            model.output_projection.bias.fill_(float("nan"))
        return original(model, *others, **options)

    monkeypatch.setattr(sample_history, "generate_samples", spoiled)
    with pytest.raises(DivergedError, match="after update 2: a logit of the samples is not finite"):
        pretrain(make_config(evaluation=EVERY_TWO), tmp_path, recorder(), data_dir=data_dir)
    assert not (tmp_path / FILE).exists()


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.jsonl"
    sample_history._append(path, b'{"step": 2}\n')

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_history.os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"samples\.jsonl"):
        sample_history._append(path, b'{"step": 4}\n')
    assert path.read_bytes() == b'{"step": 2}\n'


def test_unreadable_samples_are_an_error_that_names_the_file(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(evaluation=EVERY_TWO)
    pretrain(config, tmp_path, recorder(StopRequest.PAUSE, after=3 * 4), data_dir=data_dir)
    opened = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == tmp_path / FILE and arguments == ("rb",):
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match=r"samples\.jsonl: cannot be read \(Input/output error\)"):
        pretrain(config, tmp_path, recorder(), data_dir=data_dir)
