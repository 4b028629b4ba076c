"""Configurations are checked on construction, errors name the key and the fix, and the docs match the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.config import (
    DataConfig,
    LMConfig,
    ModelConfig,
    RLConfig,
    Settings,
    dump_yaml,
    load_lm_config,
    load_rl_config,
    merge,
)
from common.errors import ConfigError
from tests.paths import ROOT


def test_unknown_key_names_the_nearest_valid_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'") as caught:
        load_lm_config(overrides={"training": {"learning_rat": 1e-3}})
    assert caught.value.errors[0]["location"] == "training.learning_rat"


def test_unknown_section_names_the_nearest_valid_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'reward'"):
        load_rl_config(overrides={"rewards": {}})


def test_wrong_type_names_key_and_value() -> None:
    with pytest.raises(ConfigError, match=r"model\.d_model.*'wide'"):
        load_lm_config(overrides={"model": {"d_model": "wide"}})


def test_every_finding_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_lm_config(overrides={"model": {"dropout": 1.5}, "training": {"epochs": 0}})
    assert {finding["location"] for finding in caught.value.errors} == {"model.dropout", "training.epochs"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("model: [", "not valid YAML"), ("- 1\n- 2\n", "expected a mapping"), (b"\xff\xfe\x00", "cannot be read")],
)
def test_the_error_of_an_unusable_file_names_the_reason(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        load_lm_config(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_lm_config(tmp_path / "nothing.yaml")


def test_braces_mean_defaults_and_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("{}")
    assert load_lm_config(tmp_path / "defaults.yaml") == LMConfig()
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match=r"the file is empty; write \{\} for the defaults"):
        load_lm_config(tmp_path / "empty.yaml")


@pytest.mark.parametrize("config", [LMConfig(), RLConfig()])
def test_dump_loads_back_equal(config: LMConfig | RLConfig) -> None:
    assert type(config).model_validate(yaml.safe_load(dump_yaml(config))) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"d_model": 63}}, "even head width"),
        ({"training": {"micro_batch_size": 60}}, "not a multiple"),
        ({"training": {"min_learning_rate": 1.0}}, "is above learning_rate"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(overrides: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_lm_config(overrides=overrides)


def test_rewards_need_some_weight() -> None:
    zero = {f"{name}_weight": 0.0 for name in ("perplexity", "diversity", "sampling", "repetition", "coherence")}
    with pytest.raises(ConfigError, match="all reward weights are 0"):
        load_rl_config(overrides={"reward": zero})


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ModelConfig().d_model = 3  # type: ignore[misc]


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=12
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merge_keeps_what_is_not_overridden(values: dict[str, object], overrides: dict[str, object]) -> None:
    merged = merge(values, overrides)
    assert set(merged) == set(values) | set(overrides)
    for key, value in merged.items():
        if key not in overrides:
            assert value == values[key]
        elif not isinstance(value, dict) or not isinstance(values.get(key), dict):
            assert value == overrides[key]
    assert merge(merged, overrides) == merged


def test_original_names_of_the_environment_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://example.invalid:1/0")
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.delenv("TIDAL_REDIS_URL", raising=False)
    monkeypatch.delenv("TIDAL_PORT", raising=False)
    settings = Settings()
    assert (settings.redis_url.get_secret_value(), settings.port) == ("redis://example.invalid:1/0", 1234)


def test_secrets_do_not_show_in_a_printed_settings_object() -> None:
    assert "hunter2" not in repr(Settings(auth_token="hunter2"))  # type: ignore[arg-type]


def test_the_guide_matches_the_classes() -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "configuration_docs.py"))["render"]
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == render(), "run .venv/bin/python scripts/configuration_docs.py"


@pytest.mark.parametrize("tokenizer", ["train:256", "train:65537", "train:", "train:4k", "bert", "gpt-2", "train:0300"])
def test_only_gpt2_and_trainable_sizes_are_tokenizers(tokenizer: str) -> None:
    with pytest.raises(ValidationError, match=r"train:N|257 to 65536"):
        DataConfig(tokenizer=tokenizer)


def test_the_model_has_the_size_of_the_vocabulary_that_is_trained() -> None:
    config = LMConfig.model_validate({"data": {"tokenizer": "train:4096"}})
    assert config.model.vocab_size == 4096
    assert LMConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match=r"model.vocab_size 5000 .*train:4096"):
        LMConfig.model_validate({"model": {"vocab_size": 5000}, "data": {"tokenizer": "train:4096"}})
