"""`model.depth` sets size, batch and learning rate; fields that are set beside it win, and older ones are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config import LMConfig, ModelConfig, dump_yaml, load_lm_config
from common.config.depth import block_weights, depth_of_text, regularisation
from common.errors import ConfigError
from common.prediction.automatic_depth import resolve_depth
from common.prediction.corpus_size import BUILTIN_BYTES
from common.prediction.model_size import block_matrix_weights


def lm(**model: Any) -> LMConfig:
    return load_lm_config(overrides={"model": model})


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_the_shape_is_that_of_the_rule(depth: int) -> None:
    config = lm(depth=depth)
    model = config.model
    shape = (model.num_layers, model.d_model, model.num_heads, model.head_dim, model.ffn_dim)
    assert shape == (depth, 64 * depth, depth, 64, 256 * depth)
    assert block_weights(depth) == block_matrix_weights(model) == 49_152 * depth**3
    assert ModelConfig(depth=depth) == model


@pytest.mark.parametrize(
    ("depth", "rate", "batch"), [(1, 4.0e-3, 16), (2, 2.8e-3, 16), (3, 2.3e-3, 32), (4, 2.0e-3, 32), (8, 1.4e-3, 64)]
)
def test_learning_rate_and_batch_are_those_of_the_rule(depth: int, rate: float, batch: int) -> None:
    training = lm(depth=depth).training
    assert (training.learning_rate, training.effective_batch_size, training.micro_batch_size) == (rate, batch, 16)


def test_fields_that_are_set_beside_the_depth_win(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {depth: 4, num_heads: 8}\ntraining: {learning_rate: 0.01, effective_batch_size: 12}\n")
    config = load_lm_config(path, {"model": {"ffn_dim": 300}})
    assert (config.model.d_model, config.model.num_heads, config.model.ffn_dim) == (256, 8, 300)
    training = config.training
    assert (training.learning_rate, training.effective_batch_size, training.micro_batch_size) == (0.01, 12, 12)
    assert lm(depth=3, d_model=96).model.num_heads == 3


def test_a_micro_batch_beside_the_depth_divides_the_batch() -> None:
    config = load_lm_config(overrides={"model": {"depth": 3}, "training": {"micro_batch_size": 10}})
    assert (config.training.effective_batch_size, config.training.micro_batch_size) == (30, 10)


def test_the_micro_batch_divides_an_initial_batch() -> None:
    config = load_lm_config(overrides={"model": {"depth": 4}, "training": {"initial_batch_size": 8}})
    assert (config.training.effective_batch_size, config.training.micro_batch_size) == (32, 8)


def test_a_depth_in_a_request_replaces_the_shape_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(LMConfig()))
    config = load_lm_config(path, {"model": {"depth": 2}, "training": {"seed": 7}})
    assert config == load_lm_config(overrides={"model": {"depth": 2}, "training": {"seed": 7}})
    assert load_lm_config(path, {"model": {"depth": None}}) == LMConfig()


def test_a_stored_configuration_is_complete_and_loads_back_equal() -> None:
    config = load_lm_config(overrides={"model": {"depth": 5, "d_model": 200}})
    stored = yaml.safe_load(dump_yaml(config))
    assert stored["model"]["num_layers"] == 5
    assert LMConfig.model_validate(stored) == config


@pytest.mark.parametrize("depth", [0, -3, 2.5, "deep", True])
def test_an_invalid_depth_is_an_error(depth: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.depth"):
        lm(depth=depth)


def test_two_models_with_and_without_a_depth_can_share_weights() -> None:
    fields = {"d_model": 128, "num_layers": 2, "num_heads": 2, "ffn_dim": 512}
    assert ModelConfig(depth=2).shape() == ModelConfig(**fields).shape()


@pytest.mark.parametrize(
    ("size", "depth"), [(1_000, 1), (1_000_000, 2), (2_400_000, 3), (10_000_000, 5), (100_000_000, 8), (10**10, 8)]
)
def test_the_blocks_have_about_one_weight_per_byte(size: int, depth: int) -> None:
    assert depth_of_text(size) == depth


def test_regularisation_is_strongest_where_the_model_can_learn_the_text_by_heart() -> None:
    assert regularisation(2, 49_152 * 8) == (0.2, 0.8)
    assert regularisation(2, 49_152 * 16) == (0.1, 0.45)
    assert regularisation(8, 10**9) == (0.01, 0.12)


def test_auto_is_resolved_from_the_text_and_explicit_fields_win(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("word " * 100_000)  # 500,000 bytes, of which 90 % are for the training
    data = {"source": "text.txt"}
    config = resolve_depth(load_lm_config(overrides={"model": {"depth": "auto"}, "data": data}), tmp_path)
    assert (config.model.depth, config.model.d_model, config.model.dropout) == (2, 128, 0.17)
    assert (config.training.weight_decay, config.training.learning_rate) == (0.71, 2.8e-3)
    chosen = {"model": {"depth": "auto", "dropout": 0.0}, "data": data, "training": {"weight_decay": 0.3}}
    explicit = resolve_depth(load_lm_config(overrides=chosen), tmp_path)
    assert (explicit.model.depth, explicit.model.dropout, explicit.training.weight_decay) == (2, 0.0, 0.3)
    assert resolve_depth(explicit, tmp_path) is explicit


def test_auto_without_a_known_text_names_the_fix(tmp_path: Path) -> None:
    config = load_lm_config(overrides={"model": {"depth": "auto"}, "data": {"source": "someone/unknown"}})
    with pytest.raises(ConfigError, match="run a dataset job for it first, or set a number") as caught:
        resolve_depth(config, tmp_path)
    assert caught.value.errors[0]["location"] == "model.depth"


def test_the_size_of_the_built_in_text_is_about_right() -> None:
    from common.data.stories import STORY_COUNT, story

    sample = sum(len(story(number).encode()) for number in range(0, STORY_COUNT, 200))
    assert pytest.approx(sample * 200, rel=0.05) == BUILTIN_BYTES


def test_every_corpus_of_unknown_size_is_named(tmp_path: Path) -> None:
    sources = [{"source": "someone/unknown", "weight": 1.0}, {"source": "other/text", "weight": 1.0}]
    config = load_lm_config(overrides={"model": {"depth": "auto"}, "data": {"sources": sources}})
    with pytest.raises(ConfigError, match=r"the texts 'someone/unknown', 'other/text' is known only after each"):
        resolve_depth(config, tmp_path)
