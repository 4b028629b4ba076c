"""A model with its own vocabulary is the same after a restore, and a vocabulary that was altered is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine

from common.checkpoint import CheckpointManager, load_model, save_model
from common.checkpoint.manager import verify
from common.checkpoint.model_file import model_meta
from common.config import Settings
from common.errors import CheckpointError
from tests.integration.backup.backups import restore, save
from tests.own_vocabulary import own_model, own_vocabulary


def test_the_vocabulary_travels_with_checkpoints_and_final_models(
    settings: Settings, engine: Engine, elsewhere: Settings, tmp_path: Path
) -> None:
    model = own_model(own_vocabulary())
    folder = settings.experiments_dir / "exp-1"
    manager = CheckpointManager(folder / "checkpoints", keep_last=1)
    meta = model_meta(model.config, model.vocabulary, gates_trained=False)
    step = manager.save(3, model.state_dict(), {"step": 3}, meta=meta, vocabulary=model.vocabulary).path.name
    save_model(model, folder / "model.safetensors")
    save(settings, tmp_path / "saved.tar")
    restore(tmp_path / "saved.tar", elsewhere)

    restored = elsewhere.experiments_dir / "exp-1"
    ids = torch.tensor([own_vocabulary().encoding.encode_ordinary("Once upon a time")])
    for path in (restored / "checkpoints" / step, restored / "model.safetensors"):
        found = load_model(path)
        assert found.vocabulary.digest == model.vocabulary.digest
        assert torch.equal(found(ids), model(ids))
    verify(restored / "checkpoints" / step)
    (restored / "checkpoints" / step / "tokenizer.json").write_text(own_vocabulary(first_story=40).to_json())
    with pytest.raises(CheckpointError):
        verify(restored / "checkpoints" / step)
