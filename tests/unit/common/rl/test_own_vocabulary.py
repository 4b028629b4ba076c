"""A controller belongs to the vocabulary of the language model with which it was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.artifacts.model_vocabulary import stored_vocabulary
from common.checkpoint import load_model, save_model
from common.checkpoint.files import write_object
from common.config import DataConfig
from common.controller import GatingPolicy, load_policy
from common.data import Vocabulary, gpt2_vocabulary
from common.data.stories import story
from common.data.vocabulary_training import train_vocabulary
from common.errors import CheckpointError, InvalidInputError
from common.export.policy import policy_content, write_policy_file
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from common.rl import train_controller
from common.rl.export import FINAL_POLICY
from common.training.hooks import Outcome, StopRequest
from services.trainer.controller import ablate_controller
from tests.unit.common.rl.toys import toy_config
from tests.unit.common.rl.trainings import Listener

DATA = DataConfig(source="builtin:stories", max_documents=300)


def save(size: int, path: Path) -> Vocabulary:
    """Write a model with a vocabulary of `size` entries to `path`, and return the vocabulary."""
    vocabulary = train_vocabulary([story(index) for index in range(40)], size)
    model = TransformerLM(
        ModelConfig(vocab_size=size, d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    )
    model.vocabulary = vocabulary
    save_model(model, path)
    return vocabulary


def test_a_controller_is_trained_and_used_with_the_vocabulary_of_its_model(tmp_path: Path) -> None:
    own, other = tmp_path / "own" / "m.safetensors", tmp_path / "other" / "m.pth"
    vocabulary, config = save(400, own), toy_config()
    save(401, other)
    assert stored_vocabulary(own) == ("train:400", 400)
    where = {"data": DATA, "data_dir": tmp_path / "data"}
    run = tmp_path / "run"
    paused = Listener(StopRequest.PAUSE, 12)
    assert train_controller(config, own, run, paused, **where) is Outcome.PAUSED
    with pytest.raises(CheckpointError, match=r"train:400.*train:401"):
        train_controller(config, other, run, Listener(), **where)
    assert train_controller(config, own, run, Listener(), **where) is Outcome.COMPLETED

    exported = tmp_path / "exported.safetensors"
    write_policy_file(policy_content(run / FINAL_POLICY), exported)
    folder = next((run / "checkpoints").glob("iter-*"))
    for path in (run / FINAL_POLICY, folder, exported):
        assert load_policy(path).vocabulary == vocabulary.label
    policy = load_policy(run / FINAL_POLICY)
    settings = {"gating_mode": "learned", "policy": policy, "max_tokens": 4, "seed": 1}
    result = generate(load_model(own), "One day", **settings)
    assert result.prompt_token_ids == vocabulary.encoding.encode_ordinary("One day")
    with pytest.raises(InvalidInputError, match=r"train:400.*train:401"):
        generate(load_model(other), "One day", **settings)
    with pytest.raises(InvalidInputError, match=r"train:400.*train:401"):
        ablate_controller(config, other, run / FINAL_POLICY, tmp_path / "a", Listener(), **where)


def test_a_policy_without_a_vocabulary_is_one_of_gpt2(tmp_path: Path) -> None:
    own = tmp_path / "m.safetensors"
    save(400, own)
    write_object(tmp_path / "old.pth", {"agent_state_dict": GatingPolicy().state_dict()})
    old = load_policy(tmp_path / "old.pth")
    assert old.vocabulary == gpt2_vocabulary().label
    with pytest.raises(InvalidInputError, match=r"gpt2 .*train:400"):
        generate(load_model(own), "One day", gating_mode="learned", policy=old, max_tokens=2)
