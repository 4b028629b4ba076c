"""Every key of the original project's configuration files is converted or reported; none is dropped silently."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.config import LMConfig, RLConfig, build
from common.config.legacy import LM_KEYS, LM_UNUSED, RL_FIXED, RL_KEYS, RL_UNUSED, convert
from common.errors import ConfigError

BASE = """
MODEL_VERSION: "1.0.0"
MODEL_NAME: transformer-lm
DATASET: roneneldan/TinyStories
TOKENIZER: gpt2
VOCAB_SIZE: 50257
EMBED_DIM: 256
NUM_TRANSFORMER_BLOCKS: 6
NUM_ATTENTION_HEADS: 8
FFN_HIDDEN_DIM: 1024
DROPOUT: 0.1
MAX_CONTEXT_LENGTH: 256
GATE_DIM: 1
PATIENCE: 5
MIN_DELTA: 1e-4
DESIRED_BATCH_SIZE: 2048
BATCH_SIZE: 64
NUM_EPOCHS: 3
VALIDATION_SPLIT_RATIO: 0.1
NUM_CPU_CORE_WORKERS: 4
LEARNING_RATE_SCHEDULER:
  WARMUP_RATIO: 0.1
  BASE_LR: 1e-3
  MIN_LR: 1e-6
LOG_DIRECTORY: logs
ENABLE_CONSOLE_LOGGING: true
TRAINING_MODEL_ARTIFACT_CACHE_FREQUENCY: 1
DEVICE: auto
MAX_GRAD_NORM: 1.0
TORCH_COMPILE: false
EVAL_BATCH_SIZE: 64
TENSORBOARD_TAGS: {loss: Losses/Total}
"""

RL = """
RL_AGENT_TYPE: gaussian
RL_OBSERVATION_DIM: 64
RL_ACTION_DIM: 1
RL_HIDDEN_DIM: 128
RL_LEARNING_RATE: 3e-4
RL_GAMMA: 0.98
RL_CLIP_EPSILON: 0.25
RL_ENTROPY_SCHEDULE: homeostasis
RL_POLICY_ENTROPY_TARGET: -0.35
RL_CONSTRAINT_MODE: lagrangian
RL_DIVERSITY_CONSTRAINT_THRESHOLD: 0.40
RL_ROLLOUT_STEPS: 128
RL_BATCH_SIZE: 32
RL_TOTAL_TIMESTEPS: 100000
RL_TOP_K: 40
RL_PROMPT_MIN_LENGTH: 3
RL_PROMPT_MAX_LENGTH: 9
RL_MODULATION_TEMP_MIN: 0.4
RL_MODULATION_TEMP_MAX: 1.9
RL_UNFREEZE_DYNAMIC_GATES: true
RL_REWARD_PERPLEXITY_WEIGHT: 0.4375
RL_REWARD_REPETITION_WEIGHT: 0
RL_EVAL_EPISODES: 50
RL_CHECKPOINT_INTERVAL: 100
"""


def test_the_shipped_base_file_becomes_our_defaults() -> None:
    kind, values, notes = convert(yaml.safe_load(BASE))
    assert kind == "lm"
    config = build(LMConfig, values)
    expected = LMConfig()
    assert config.model == expected.model
    assert config.data == expected.data
    assert config.training.model_copy(update={"compile": "auto"}) == expected.training
    assert config.training.compile == "off"
    for key in LM_UNUSED:
        assert any(note.startswith(f"{key} ") for note in notes), key
    assert any("weight_decay" in note for note in notes)


def test_a_controller_file_keeps_its_values_and_notes_what_has_no_option() -> None:
    kind, values, notes = convert(yaml.safe_load(RL))
    assert kind == "rl"
    config = build(RLConfig, values)
    assert config.policy.distribution == "gaussian"
    assert (config.ppo.learning_rate, config.ppo.gamma, config.ppo.clip_range) == (3e-4, 0.98, 0.25)
    assert (config.ppo.num_envs, config.ppo.minibatch_size, config.ppo.total_steps) == (1, 32, 100_000)
    assert (config.modulation.temperature.low, config.modulation.temperature.high) == (0.4, 1.9)
    assert config.episode.prompt_max_tokens == 9
    assert (config.reward.perplexity_weight, config.reward.repetition_weight) == (0.4375, 0.0)
    assert config.ablation.prompts == 50 and config.checkpoint_every_iterations == 100
    assert (config.ppo.entropy_schedule, config.ppo.policy_entropy_target) == ("homeostasis", -0.35)
    assert (config.constraint.mode, config.constraint.diversity_threshold) == ("lagrangian", 0.40)
    assert config.diversity_homeostasis.target is None, "the original switches it off by leaving the key out"
    assert config.policy.deterministic_action == "mode"
    for key in ("RL_UNFREEZE_DYNAMIC_GATES True", "RL_TOP_K 40"):
        assert any(note.startswith(f"{key} left out") for note in notes), key
    assert not any("RL_OBSERVATION_DIM" in note for note in notes)


PLAIN: dict[str, Any] = {
    **dict.fromkeys(LM_KEYS, 1),
    **dict.fromkeys(LM_UNUSED, 1),
    "MODEL_VERSION": "2",
    "MODEL_NAME": "m",
    "DATASET": "a.txt",
    "TOKENIZER": "gpt2",
    "DROPOUT": 0.5,
    "VOCAB_SIZE": 9,
    "EMBED_DIM": 8,
    "NUM_ATTENTION_HEADS": 2,
    "MAX_CONTEXT_LENGTH": 9,
    "VALIDATION_SPLIT_RATIO": 0.2,
    "DEVICE": "cpu",
    "TORCH_COMPILE": True,
}


@given(st.sets(st.sampled_from(sorted(PLAIN)), min_size=1))
def test_any_part_of_a_base_file_is_placed_or_noted(keys: set[str]) -> None:
    keys |= {"EMBED_DIM", "NUM_ATTENTION_HEADS"}
    _, values, notes = convert({key: PLAIN[key] for key in keys})
    for key in keys:
        if key in LM_UNUSED:
            assert any(note.startswith(f"{key} ") for note in notes)
        else:
            section, name = LM_KEYS[key].split(".")
            expected = "on" if key == "TORCH_COMPILE" else PLAIN[key]
            if key != "DESIRED_BATCH_SIZE":
                assert values[section][name] == expected


def test_every_place_exists_in_our_configuration() -> None:
    for section, places in ((LMConfig, LM_KEYS), (RLConfig, RL_KEYS)):
        defaults = section().model_dump()
        for place in places.values():
            at: Any = defaults
            for name in place.split("."):
                assert name in at, place
                at = at[name]
    assert not set(RL_KEYS) & (set(RL_UNUSED) | set(RL_FIXED))


def test_an_unknown_key_is_noted_with_the_nearest() -> None:
    _, _, notes = convert({"EMBED_DIM": 64, "EMBED_DIMM": 64, "FAVOURITE_COLOUR": "red"})
    assert any("EMBED_DIMM 64 left out: unknown key; the nearest known key is EMBED_DIM" in note for note in notes)
    assert any("FAVOURITE_COLOUR 'red' left out: unknown key" in note for note in notes)


def test_older_gates_and_odd_batches_are_adjusted_with_a_note() -> None:
    _, values, notes = convert({"GATE_DIM": 3, "DESIRED_BATCH_SIZE": 100, "BATCH_SIZE": 32})
    assert values["model"]["gate_dim"] == 1 and values["training"]["effective_batch_size"] == 96
    assert any("GATE_DIM 3 was changed to 1" in note for note in notes)
    assert any("DESIRED_BATCH_SIZE 100 became 96" in note for note in notes)


@pytest.mark.parametrize(
    ("mapping", "finding"),
    [
        ({"model": {"d_model": 3}}, "this is not a configuration of the original project"),
        ({}, "this is not a configuration of the original project"),
        ({"EMBED_DIM": "wide"}, "model.d_model"),
        ({"TOKENIZER": "bert"}, "data.tokenizer"),
        ({"LEARNING_RATE_SCHEDULER": 3, "EMBED_DIM": 64}, "expected a mapping"),
        ({"RL_GAMMA": 1.5}, "ppo.gamma"),
    ],
)
def test_what_cannot_be_converted_is_an_error(mapping: dict[str, Any], finding: str) -> None:
    with pytest.raises(ConfigError, match=finding):
        convert(mapping)
