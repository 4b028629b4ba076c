"""The shipped configurations can be loaded, and the documented defaults are the real ones."""

from __future__ import annotations

from pathlib import Path

from common.config import PROJECT_ROOT, DataConfig, LMConfig, RLConfig, load_lm_config, load_rl_config
from common.prediction.automatic_depth import resolve_depth

CONFIGS = PROJECT_ROOT / "configs"


def test_the_base_files_spell_out_the_defaults() -> None:
    assert load_lm_config(CONFIGS / "base_config.yaml") == LMConfig()
    assert load_rl_config(CONFIGS / "rl_config.yaml") == RLConfig()


def test_the_demonstration_fits_together() -> None:
    lm, rl = load_lm_config(CONFIGS / "demo/lm.yaml"), load_rl_config(CONFIGS / "demo/rl.yaml")
    assert rl.episode.max_length + rl.episode.prompt_max_tokens <= lm.model.context_length
    assert lm.training.modulation_fraction > 0, "the controller needs gates that are trained with modulation"
    assert lm.training.max_seconds is not None
    assert rl.max_seconds is not None
    assert lm.training.max_seconds + rl.max_seconds <= 300


def test_the_recipes_differ_from_the_reference_where_documented(tmp_path: Path) -> None:
    found = {path.stem: load_lm_config(path) for path in (CONFIGS / "presets").glob("lm-*.yaml")}
    assert set(found) == {"lm-modern", "lm-own-text"}
    modern = found["lm-modern"]
    assert (modern.model.d_model, modern.model.dropout, modern.training.optimizer) == (256, 0.0, "muon")
    (tmp_path / "mine.txt").write_text("a" * 3_000_000)
    own = found["lm-own-text"]
    own = resolve_depth(own.model_copy(update={"data": DataConfig(source="mine.txt")}), tmp_path)
    assert (own.model.depth, own.model.dropout, own.training.weight_decay) == (3, 0.1, 0.44)
    assert own.training.average_decay == 0.999


def test_the_presets_are_the_batched_defaults_the_reproduction_and_the_original_weights() -> None:
    found = {path.stem: load_rl_config(path) for path in (CONFIGS / "presets").glob("rl-*.yaml")}
    assert set(found) == {"rl-batched", "rl-reproduce", "rl-original-shipped-weights"}
    assert found["rl-batched"] == RLConfig()
    reproduce = found["rl-reproduce"]
    assert (reproduce.ppo.num_envs, reproduce.ppo.total_steps) == (1, 100_000)
    assert reproduce.reward == RLConfig().reward, "the weights of the original's code are the defaults"
    shipped = found["rl-original-shipped-weights"].reward
    weights = (shipped.perplexity_weight, shipped.diversity_weight, shipped.sampling_weight)
    assert (*weights, shipped.repetition_weight, shipped.coherence_weight) == (0.4375, 0.1875, 0.1875, 0.0, 0.1875)
