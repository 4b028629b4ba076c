"""An import of an experiment folder of the original project creates a finished experiment, or changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.checkpoint import load_model, save_model
from common.config import get_settings, load_lm_config
from common.db import Checkpoint, Experiment, make_engine
from common.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from services.cli import import_directory
from tests.metrics_oracle import read_metrics
from tests.own_vocabulary import own_model, own_vocabulary

WEIGHTS = b"weights as the original wrote them"


@pytest.fixture
def store(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    monkeypatch.setenv("TIDAL_DATABASE_URL", database_url)
    monkeypatch.setenv("TIDAL_EXPERIMENTS_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("TIDAL_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield ArtifactStore(tmp_path / "store")
    get_settings.cache_clear()


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Return the folder of a language model in the format of the original project."""
    folder = tmp_path / "20250101-120000-commit_abc1234-config_0123456789"
    (folder / "dashboard_metrics").mkdir(parents=True)
    (folder / "evaluation_results").mkdir()
    (folder / "tensorboard_logs").mkdir()
    (folder / "tensorboard_logs" / "events").write_text("binary")
    (folder / "config.yaml").write_text("MODEL_NAME: transformer-lm\nEMBED_DIM: 64\nNUM_ATTENTION_HEADS: 4\n")
    (folder / "metadata.json").write_text(json.dumps({"type": "lm", "created_at": "2025-01-01T12:00:00"}))
    lines = [{"step": n, "timestamp": "2025-01-01T12:00:00Z", "Losses/Total": 9.0 - n} for n in (1, 2)]
    (folder / "dashboard_metrics" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "evaluation_results" / "evaluation_results.json").write_text('{"perplexity": 7.5, "samples": []}')
    (folder / "transformer-lm_v1.0.0.pth").write_bytes(WEIGHTS)
    return folder


def test_everything_is_taken_over(original: Path, store: ArtifactStore, database: Engine) -> None:
    done = import_directory.run(original, experiment_id=None, name="the first one")
    assert done.experiment_id == original.name
    assert (done.kind, done.points, done.remarks) == ("lm", 2, [])
    assert done.model == f"{original.name}/final"
    assert store.resolve(done.model).read_bytes() == WEIGHTS
    folder = store.experiment(original.name)
    assert load_lm_config(folder / "config.yaml").model.d_model == 64
    assert (folder / "original" / "config.yaml").read_text() == (original / "config.yaml").read_text()
    assert [p.values for p in read_metrics(folder, "metrics")] == [{"Losses/Total": 8.0}, {"Losses/Total": 7.0}]
    assert store.read_json(original.name, "evaluation_results/evaluation_results.json")["perplexity"] == 7.5
    assert not (folder / "tensorboard_logs").exists()
    with Session(database) as session:
        row = session.get_one(Experiment, original.name)
        assert (row.type, row.name, row.imported) == ("lm", "the first one", True)
        assert row.created_at.isoformat() == "2025-01-01T12:00:00+00:00"
        assert row.config["model"]["d_model"] == 64
        (checkpoint,) = session.scalars(select(Checkpoint))
        assert (checkpoint.kind, checkpoint.name) == ("model", "transformer-lm_v1.0.0.pth")
        assert checkpoint.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_second_import_changes_nothing_and_names_the_way_out(original: Path, store: ArtifactStore) -> None:
    import_directory.run(original, experiment_id=None, name=None)
    with pytest.raises(ConflictError, match="--id"):
        import_directory.run(original, experiment_id=None, name=None)
    other = import_directory.run(original, experiment_id="again", name=None)
    assert store.experiments() == sorted([original.name, other.experiment_id], reverse=True)


def test_an_id_that_only_the_database_knows_leaves_no_folder(
    original: Path, store: ArtifactStore, database: Engine
) -> None:
    with Session(database) as session:
        session.add(Experiment(id=original.name, type="lm"))
        session.commit()
    with pytest.raises(ConflictError, match="already exists"):
        import_directory.run(original, experiment_id=None, name=None)
    assert list(store.root.iterdir()) == []


def test_a_database_that_is_not_migrated_leaves_no_folder(
    original: Path, store: ArtifactStore, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDAL_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    with pytest.raises(UnavailableError, match="tidal db migrate"):
        import_directory.run(original, experiment_id=None, name=None)
    assert list(store.root.iterdir()) == []


def test_a_controller_folder_is_known_by_its_files(tmp_path: Path, store: ArtifactStore, database: Engine) -> None:
    folder = tmp_path / "my controller"
    folder.mkdir()
    (folder / "rl_checkpoint_final.pth").write_bytes(WEIGHTS)
    done = import_directory.run(folder, experiment_id=None, name=None)
    assert (done.experiment_id, done.kind, done.model) == ("my-controller", "rl", None)
    with Session(database) as session:
        assert session.scalars(select(Checkpoint.kind)).all() == ["policy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains neither checkpoints"),
        ({"tokenizer.json": "{}", "model.pth.json": "{}"}, "contains neither checkpoints"),
        ({"metadata.json": '{"type": "vision"}'}, "it must be lm or rl"),
    ],
)
def test_a_folder_that_is_no_experiment_is_refused(
    tmp_path: Path, store: ArtifactStore, content: dict[str, str], message: str
) -> None:
    folder = tmp_path / "something"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        import_directory.run(folder, experiment_id=None, name=None)
    with pytest.raises(NotFoundError):
        import_directory.run(tmp_path / "nowhere", experiment_id=None, name=None)


def test_a_configuration_that_cannot_be_converted_is_kept_and_reported(original: Path, store: ArtifactStore) -> None:
    (original / "config.yaml").write_text("EMBED_DIM: many\n")
    done = import_directory.run(original, experiment_id=None, name=None)
    assert len(done.remarks) == 1
    assert "config.yaml could not be converted" in done.remarks[0]
    assert not (store.experiment(original.name) / "config.yaml").exists()
    assert (store.experiment(original.name) / "original" / "config.yaml").exists()


def test_a_model_with_its_own_vocabulary_keeps_it(tmp_path: Path, store: ArtifactStore) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    model = own_model(own_vocabulary())
    save_model(model, folder / "model.pth")
    done = import_directory.run(folder, experiment_id=None, name=None)
    assert done.files == 3 and done.model is not None
    assert load_model(store.resolve(done.model)).vocabulary.digest == model.vocabulary.digest
