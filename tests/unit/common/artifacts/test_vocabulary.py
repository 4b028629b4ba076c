"""A vocabulary is described without torch as the library of the model describes it, whatever the files contain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.artifacts import checkpoint_vocabulary, vocabulary_facts
from common.checkpoint import CheckpointManager, save_model
from common.checkpoint.model_file import model_meta
from common.errors import StorageError
from tests.own_vocabulary import model_with_gpt2, own_model, own_vocabulary


def test_the_description_of_a_model_is_that_of_its_vocabulary(tmp_path: Path) -> None:
    model = own_model(own_vocabulary())
    wanted = model.vocabulary.describe()
    file = save_model(model, tmp_path / "model.safetensors")
    meta = model_meta(model.config, model.vocabulary, gates_trained=False)
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=1)
    folder = manager.save(1, model.state_dict(), {"step": 1}, meta=meta, vocabulary=model.vocabulary).path
    for path in (file, folder):
        found = checkpoint_vocabulary(path)
        assert found is not None and vars(found) == wanted


def test_a_model_without_a_description_has_gpt_2s(tmp_path: Path) -> None:
    path = save_model(model_with_gpt2(), tmp_path / "model.pth")
    found = checkpoint_vocabulary(path)
    assert found is not None and (found.name, found.size) == ("gpt2", 50257)
    path.with_name("model.pth.json").unlink()
    assert checkpoint_vocabulary(path) == found, "a file of the original project"


@pytest.mark.parametrize("content", ["", "[]", '{"vocabulary": {"name": "train:400"}}', '{"vocabulary": 7}'])
def test_a_damaged_manifest_gives_no_description(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert checkpoint_vocabulary(tmp_path / "model.safetensors") is None
    (tmp_path / "model.safetensors.json").write_text(content)
    assert checkpoint_vocabulary(tmp_path / "model.safetensors") is None


def test_the_facts_are_those_of_the_entries(tmp_path: Path) -> None:
    vocabulary = own_vocabulary()
    (tmp_path / "tokenizer.json").write_text(vocabulary.to_json(), encoding="utf-8")
    facts = vocabulary_facts(tmp_path / "tokenizer.json")
    assert facts is not None and vars(facts.description) == vocabulary.describe()
    entries = [vocabulary.encoding.decode_single_token_bytes(token) for token in range(vocabulary.size - 1)]
    assert facts.mean_bytes == pytest.approx(sum(map(len, entries)) / len(entries))
    assert len(facts.longest[0].encode()) == max(map(len, entries))
    assert list(facts.words) == [entry.decode() for entry in entries[256:] if len(entry) > 3][:24]
    assert vocabulary_facts(tmp_path / "other.json") is None


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"merges": ["a \\u4e2d"]}}', '{"model": {"merges": [7]}}'])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(StorageError, match=r"tokenizer\.json cannot be read as a vocabulary"):
        vocabulary_facts(tmp_path / "tokenizer.json")


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    """A file with other bytes is another vocabulary, even if its merges are the same."""
    definition = json.loads(own_vocabulary().to_json())
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition, indent=1))
    facts = vocabulary_facts(tmp_path / "tokenizer.json")
    assert facts is not None and facts.description.digest != own_vocabulary().digest
