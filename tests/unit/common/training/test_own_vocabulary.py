"""A training with `data.tokenizer: train:N` learns a vocabulary once, and every file of its model belongs to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from common.checkpoint import CheckpointManager, load_model, load_vocabulary
from common.config import DataConfig, LMConfig
from common.data import corpus_vocabulary as cached_vocabularies
from common.data import gpt2_files, gpt2_vocabulary, open_corpus, read_vocabulary, vocabulary
from common.data.vocabulary_training import train_vocabulary
from common.errors import CheckpointError, ConfigError
from common.generation import generate
from common.training.hooks import Outcome, StopRequest
from common.training.loading import load_corpus
from common.training.pretrain import pretrain
from services.trainer.language_model import evaluate_checkpoint

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
OWN = {"tokenizer": "train:290"}
OTHER = train_vocabulary(["the cat the dog the cat"], 259).to_json().encode()
"""The file of another vocabulary."""


@pytest.fixture
def without_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every use of GPT-2's files fail."""

    def fail() -> None:
        raise AssertionError("GPT-2's vocabulary is read")

    monkeypatch.setattr(gpt2_files, "vocabulary_files", fail)
    monkeypatch.setattr(vocabulary, "load_gpt2_encoding", fail)
    gpt2_vocabulary.cache_clear()


@pytest.fixture
def trained(make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, without_gpt2: None) -> Path:
    """Train a model with a vocabulary of its own, without GPT-2's files, and return the experiment's folder."""
    hooks = recorder()
    config = make_config(data=OWN, checkpoint={"every_steps": 2})
    assert pretrain(config, tmp_path / "own", hooks, data_dir=data_dir) is Outcome.COMPLETED
    [event] = [details for name, details in hooks.events if name == "vocabulary"]
    assert (event["tokenizer"], event["size"]) == ("train:290", 290) and event["bytes_per_token"] > 1
    assert hooks.series("Losses/Total")[1] == pytest.approx(math.log(290), abs=0.2)
    return tmp_path / "own"


def test_every_file_of_the_model_has_its_vocabulary(trained: Path) -> None:
    stored = read_vocabulary(trained / "tokenizer.json")
    assert stored.size == 290
    newest = CheckpointManager(trained / "checkpoints", keep_last=1).list()[-1]
    manifest = json.loads((newest.path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"weights.safetensors", "training_state.pt", "tokenizer.json"}
    assert manifest["meta"]["vocabulary"] == stored.describe()
    for path in (newest.path, trained / "tiny_v1.0.0.pth", trained / "tiny_v1.0.0.safetensors"):
        model = load_model(path)
        assert model.config.vocab_size == 290
        assert model.vocabulary.digest == load_vocabulary(path).digest == stored.digest
    text = "Lily saw a big red ball."
    generation = generate(model, text, max_tokens=5, seed=1)
    assert generation.prompt_token_ids == stored.encoding.encode_ordinary(text)
    assert generation.text.encode() == stored.encoding.decode_bytes(generation.token_ids) or "\ufffd" in generation.text


def test_bits_per_byte_count_the_bytes_of_the_own_tokens(
    trained: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    config = make_config()
    path = trained / "tiny_v1.0.0.safetensors"
    # The job names GPT-2's tokenizer, but the model's vocabulary counts.
    assert config.data.tokenizer == "gpt2"
    hooks, evaluation = recorder(), config.evaluation.model_copy(update={"max_batches": None})
    evaluate_checkpoint(path, tmp_path / "e", hooks, data=config.data, evaluation=evaluation, data_dir=data_dir)
    found = json.loads((tmp_path / "e/evaluation_results/evaluation_results.json").read_text())

    model = load_model(path)
    tokens = torch.tensor(open_corpus(config.data, data_dir=data_dir, vocabulary=model.vocabulary).validation.tolist())
    chunks = tokens[: len(tokens) // 17 * 17].view(-1, 17)
    loss = cross_entropy(model(chunks[:, :-1]).flatten(0, 1), chunks[:, 1:].flatten(), reduction="sum")
    predicted = [token for token in chunks[:, 1:].flatten().tolist() if token != 289]
    size = len(model.vocabulary.encoding.decode_bytes(predicted))
    assert found["bits_per_byte"] == pytest.approx(float(loss.detach()) / math.log(2) / size, rel=1e-4)


def test_a_resumed_training_keeps_its_vocabulary_and_trains_none(
    make_config: Config,
    recorder: Recorders,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
) -> None:
    config = make_config(data=OWN)
    assert pretrain(config, tmp_path / "r", recorder(StopRequest.PAUSE, after=4), data_dir=data_dir) is Outcome.PAUSED
    stored = (tmp_path / "r/tokenizer.json").read_bytes()
    monkeypatch.setattr(cached_vocabularies, "train_vocabulary", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(cached_vocabularies, "_cached", lambda *_: pytest.fail("asked for another one"))
    hooks = recorder()
    assert pretrain(config, tmp_path / "r", hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert "resume_inexact" not in dict(hooks.events)
    assert (tmp_path / "r/tokenizer.json").read_bytes() == stored
    resumed, whole = (load_model(path / "tiny_v1.0.0.pth").state_dict() for path in (tmp_path / "r", trained))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    # The experiment's file may be lost, for example in a copy of the checkpoints only.
    (tmp_path / "r/tokenizer.json").unlink()
    assert pretrain(config, tmp_path / "r", recorder(), data_dir=data_dir) is Outcome.COMPLETED
    assert (tmp_path / "r/tokenizer.json").read_bytes() == stored
    for wrong in (b"{damaged", OTHER):
        (tmp_path / "r/tokenizer.json").write_bytes(wrong)
        assert pretrain(config, tmp_path / "r", recorder(), data_dir=data_dir) is Outcome.COMPLETED
        assert (tmp_path / "r/tokenizer.json").read_bytes() == stored, "the checkpoints have an intact copy"


@pytest.mark.parametrize("content", [b"{damaged", OTHER])
def test_a_vocabulary_in_a_folder_without_checkpoints_is_replaced(
    content: bytes, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert pretrain(make_config(data=OWN), tmp_path, recorder(), data_dir=data_dir) is Outcome.COMPLETED
    assert load_model(tmp_path / "tiny_v1.0.0.pth").vocabulary.size == 290


@pytest.mark.parametrize("source", ["final", "checkpoint"])
def test_a_training_from_a_checkpoint_keeps_the_vocabulary(
    source: str, trained: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    text = tmp_path / "other.txt"
    text.write_text("\n<|endoftext|>\n".join(f"Ben fährt {n} Züge in Köln 🚂." for n in range(40)), encoding="utf-8")
    folders = sorted((trained / "checkpoints").glob("step-*"))
    start = trained / "tiny_v1.0.0.safetensors" if source == "final" else folders[0]
    config = make_config(data={"source": str(text)})
    outcome = pretrain(config, tmp_path / "new", recorder(), data_dir=data_dir, initial_checkpoint=start)
    assert outcome is Outcome.COMPLETED
    continued = load_model(tmp_path / "new" / "tiny_v1.0.0.pth")
    assert continued.vocabulary.digest == read_vocabulary(trained / "tokenizer.json").digest
    assert continued.config.vocab_size == 290


def test_another_vocabulary_than_that_of_the_checkpoint_is_an_error(
    trained: Path, make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    start = trained / "tiny_v1.0.0.safetensors"

    def refused(**sections: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            pretrain(make_config(**sections), tmp_path / "new", recorder(), data_dir=data_dir, initial_checkpoint=start)
        return caught.value.message

    message = refused(data={"tokenizer": "train:280"})
    assert "train:280" in message and "train:290" in message
    message = refused(model={"vocab_size": 1000})
    assert "1000" in message and "train:290" in message


def test_a_damaged_or_foreign_vocabulary_is_refused(trained: Path) -> None:
    newest = CheckpointManager(trained / "checkpoints", keep_last=1).list()[-1].path
    (newest / "tokenizer.json").write_bytes(OTHER)
    with pytest.raises(CheckpointError):
        load_model(newest)
    manager = CheckpointManager(trained / "checkpoints", keep_last=1)
    assert manager.latest() is not None and manager.skipped[0].name == newest.name
    (trained / "tokenizer.json").write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"train:259.*train:290"):
        load_model(trained / "tiny_v1.0.0.pth")
    (trained / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"needs its own vocabulary train:290"):
        load_model(trained / "tiny_v1.0.0.safetensors")


def test_training_a_vocabulary_is_a_phase_that_can_be_stopped(
    make_config: Config, recorder: Recorders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.training.loading.REPORT_SECONDS", 0.0)
    hooks = recorder()
    data = DataConfig(source="builtin:stories", max_documents=1100, tokenizer="train:400")
    corpus = load_corpus(data, tmp_path, hooks)
    assert corpus.vocabulary.name == "train:400"
    assert "training vocabulary (512 of 1,100 documents)" in hooks.phases
    assert "training vocabulary (computing merges)" in hooks.phases
    assert hooks.phases[0] == hooks.phases[-1] == "loading data"

    stopped = recorder(StopRequest.STOP, in_phase="training vocabulary")
    config = make_config(data={"source": "builtin:stories", "max_documents": 2000, "tokenizer": "train:500"})
    assert pretrain(config, tmp_path / "run", stopped, data_dir=tmp_path) is Outcome.STOPPED
    assert not (tmp_path / "run").exists()


def test_one_corpus_has_one_vocabulary_until_its_text_changes(tmp_path: Path) -> None:
    text = tmp_path / "words.txt"

    def vocabulary_of(words: str) -> str:
        text.write_text("\n<|endoftext|>\n".join(f"{words} {n % 7}" for n in range(50)), encoding="utf-8")
        config = DataConfig(source=str(text), tokenizer="train:262")
        return open_corpus(config, data_dir=tmp_path).vocabulary.digest

    first = vocabulary_of("one two three")
    assert vocabulary_of("one two three") == first
    assert vocabulary_of("four five six") != first
