"""A checkpoint is continued with the same text and fine-tuned with another; several corpora are validated singly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import CheckpointManager, load_model
from common.config import LMConfig
from common.data import open_corpus
from common.errors import ConfigError
from common.training.device import prepare_compute
from common.training.evaluation import validate, validate_corpus
from common.training.hooks import Outcome, StopRequest
from common.training.pretrain import pretrain
from tidal_client.vocabulary import CheckpointMode

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]


@pytest.fixture
def other_text(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    documents = [f"Dear {name}, the sea is calm and we wait for wind, day {day}." for day in range(30) for name in "AB"]
    path.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture
def checkpoint(make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path) -> Path:
    """Return the checkpoint after two steps of a stopped training."""
    pretrain(make_config(), tmp_path / "old", recorder(StopRequest.STOP, after=8), data_dir=data_dir)
    return CheckpointManager(tmp_path / "old/checkpoints", keep_last=1).list()[-1].path


def test_another_text_means_fine_tuning_with_new_counters_and_a_quarter_of_the_rate(
    checkpoint: Path, other_text: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(data={"source": str(other_text)}, training={"warmup_steps": 1})
    hooks = recorder()
    found = pretrain(config, tmp_path / "new", hooks, data_dir=data_dir, initial_checkpoint=checkpoint)
    assert found is Outcome.COMPLETED
    assert not hooks.named("resumed") and not hooks.named("resume_inexact")
    assert hooks.named("initial_weights")[0]["peak_learning_rate"] == 0.0025
    assert list(hooks.series("Losses/Total")) == [1, 2, 3, 4, 5, 6]
    assert max(hooks.series("Learning Rate").values()) == pytest.approx(0.0025)
    before = load_model(checkpoint)
    assert hooks.series("Losses/Validation")[0] < math.log(50257), "it starts from the trained weights"
    corpus = open_corpus(config.data, data_dir=data_dir)
    expected = validate(before, corpus.parts[0].validation.tokens, config.evaluation, prepare_compute(config.training))
    assert expected is not None and hooks.series("Losses/Validation")[0] == expected.loss


def test_an_explicit_rate_wins_and_an_interrupted_fine_tuning_continues_exactly(
    checkpoint: Path, other_text: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config(data={"source": str(other_text)}, training={"fine_tuning_learning_rate": 0.004})
    whole, first, second = recorder(), recorder(StopRequest.PAUSE, after=14), recorder()
    start = {"data_dir": data_dir, "initial_checkpoint": checkpoint}
    pretrain(config, tmp_path / "whole", whole, **start)
    assert max(whole.series("Learning Rate").values()) == pytest.approx(0.004)
    assert pretrain(config, tmp_path / "parts", first, **start) is Outcome.PAUSED
    pretrain(config, tmp_path / "parts", second, **start)
    assert second.named("resumed") and not second.named("resume_inexact")
    models = [load_model(tmp_path / name / "tiny_v1.0.0.safetensors").state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_mode_overrides_the_text(
    checkpoint: Path, other_text: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    same, other = recorder(), recorder()
    start: dict[str, Any] = {"data_dir": data_dir, "initial_checkpoint": checkpoint}
    pretrain(make_config(), tmp_path / "same", same, checkpoint_mode=CheckpointMode.FINE_TUNE, **start)
    assert min(same.series("Losses/Total")) == 1 and same.named("initial_weights")
    config = make_config(data={"source": str(other_text)})
    pretrain(config, tmp_path / "other", other, checkpoint_mode=CheckpointMode.CONTINUE, **start)
    assert min(other.series("Losses/Total")) == 3
    assert "corpus was" in other.named("resume_inexact")[0]["reasons"][0]
    start["initial_checkpoint"] = tmp_path / "same/tiny_v1.0.0.pth"
    with pytest.raises(ConfigError, match=r"tiny_v1\.0\.0\.pth contains weights, but no training state"):
        pretrain(make_config(), tmp_path / "w", recorder(), checkpoint_mode=CheckpointMode.CONTINUE, **start)


def test_a_mixture_is_validated_by_corpus_and_resumes_exactly(
    text_file: Path, other_text: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    sources = [{"source": str(text_file), "weight": 3}, {"source": str(other_text), "weight": 1}]
    config = make_config(evaluation={"max_batches": None}, training={"max_steps": 4})
    data = {"sources": sources, "validation_fraction": 0.2}
    config = config.model_copy(update={"data": type(config.data).model_validate(data)})
    whole, first, second = recorder(), recorder(StopRequest.PAUSE, after=10), recorder()
    pretrain(config, tmp_path / "whole", whole, data_dir=data_dir)
    assert pretrain(config, tmp_path / "parts", first, data_dir=data_dir) is Outcome.PAUSED
    pretrain(config, tmp_path / "parts", second, data_dir=data_dir)
    assert not second.named("resume_inexact")
    model, resumed = (load_model(tmp_path / name / "tiny_v1.0.0.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in resumed.state_dict().items())

    corpus, compute = open_corpus(config.data, data_dir=data_dir), prepare_compute(config.training)
    assert [part.share for part in corpus.parts] == [0.75, 0.25]
    found = [validate(model, part.validation.tokens, config.evaluation, compute) for part in corpus.parts]
    alone = [each for each in found if each is not None]
    assert len(alone) == 2
    together = validate_corpus(model, corpus, config.evaluation, compute)
    assert together is not None and together.bits_per_byte is not None
    loss = 0.75 * alone[0].loss + 0.25 * alone[1].loss
    assert together.loss == pytest.approx(loss)
    bits = [each.bits_per_byte for each in alone if each.bits_per_byte is not None]
    assert min(bits) < together.bits_per_byte < max(bits)
    assert whole.series("Losses/Validation/words.txt")[4] == alone[0].loss
    assert whole.series("Bits per Byte/Validation/letters.txt")[4] == bits[1]
    results = json.loads((tmp_path / "whole/evaluation_results/evaluation_results.json").read_text())
    assert [entry["name"] for entry in results["corpora"]] == ["words.txt", "letters.txt"]
    assert results["validation_loss"] == together.loss
