"""A training from a checkpoint has the shape of its model, whatever depth a configuration file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import LMConfig
from common.config.from_checkpoint import load_from_checkpoint
from common.errors import ConfigError

TRAINED = LMConfig.model_validate({"model": {"depth": 2, "context_length": 32}, "data": {"tokenizer": "train:4096"}})


@pytest.mark.parametrize("depth", ["8", "auto"])
def test_a_depth_in_a_file_is_replaced_with_all_that_follows(tmp_path: Path, depth: str) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text(f"model: {{depth: {depth}}}\ntraining: {{seed: 7}}\n")
    found = load_from_checkpoint(file, {}, TRAINED)
    expected = LMConfig.model_validate({"model": {"depth": 2, "context_length": 32}, "training": {"seed": 7}})
    assert found == expected


def test_fields_that_a_file_spells_out_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text("model: {d_model: 512}\ntraining: {learning_rate: 0.0005}\n")
    found = load_from_checkpoint(file, {}, TRAINED)
    assert (found.model.d_model, found.model.depth, found.training.learning_rate) == (128, None, 0.0005)


@pytest.mark.parametrize("depth", [8, "auto"])
def test_another_depth_in_the_request_is_refused(depth: object) -> None:
    with pytest.raises(ConfigError, match=f"depth {depth} is not .* 2 layers of width 128; leave model.depth out"):
        load_from_checkpoint(None, {"model": {"depth": depth}}, TRAINED)
    assert load_from_checkpoint(None, {"model": {"depth": 2}}, TRAINED).model.num_layers == 2


def test_another_vocabulary_is_refused_with_both_names() -> None:
    config = load_from_checkpoint(None, {"data": {"tokenizer": "train:2048"}}, TRAINED)
    with pytest.raises(ConfigError, match=r"train:2048 differs from the vocabulary train:4096"):
        config.with_vocabulary("train:4096", 4096)
    padded = LMConfig.model_validate({"model": {"vocab_size": 50304}})
    assert load_from_checkpoint(None, {}, padded).model.vocab_size == 50304
