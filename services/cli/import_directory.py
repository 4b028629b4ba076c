"""Imports an experiment folder of the original project into the store and the database, as a finished experiment.

The files are copied to a hidden folder, which is renamed once it is complete. Then the rows are inserted in one
transaction; if that fails, the renamed folder is deleted. Configurations and metrics are converted, and the original
configuration files are kept. TensorBoard logs are not imported. Checkpoints are only checked when they are loaded.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from common.artifacts import ArtifactStore
from common.chat.template import TEMPLATE_FILE
from common.config import get_settings
from common.config.legacy import convert
from common.config.tokenizers import VOCABULARY_FILE
from common.config.yaml_text import read_mapping, write_yaml
from common.db import Checkpoint, Experiment, make_engine, require_schema, session_factory
from common.errors import ConfigError, ConflictError, InvalidInputError, NotFoundError, UnavailableError
from common.files import sha256_of
from services.cli.commands.database import database_url
from services.cli.import_metrics import write_metrics, write_rl_metrics
from tidal_client import read_instance
from tidal_client.vocabulary import parse_utc

COPIED = ("evaluation_results/evaluation_results.json", "ablation_results.json")
CHECKPOINTS = "*.pth"
BESIDE_CHECKPOINTS = ("*.pth.json", VOCABULARY_FILE, TEMPLATE_FILE)
"""Tidal writes a manifest next to each checkpoint, and the vocabulary of a model that has its own. A model may have a
chat template too."""
CONFIG_FILES = ("config.yaml", "base_config.yaml", "rl_config.yaml")


@dataclass
class ImportResult:
    """The result of an import."""

    experiment_id: str
    kind: str
    files: int = 0
    points: int = 0
    model: str | None = None
    """Reference to the imported language model; None if the experiment has none."""
    remarks: list[str] = field(default_factory=list)


def run(folder: Path, *, experiment_id: str | None, name: str | None) -> ImportResult:
    """Import an experiment folder.

    Raises NotFoundError if the folder does not exist, InvalidInputError if it contains no experiment, and ConflictError
    if the id is already used.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder")
    metadata = _metadata(folder)
    done = ImportResult(experiment_id or _id_from(folder.name), _kind(folder, metadata))
    store = ArtifactStore(_experiments_dir())
    target = store.experiment(done.experiment_id)
    if target.exists():
        raise ConflictError(f"experiment {done.experiment_id} already exists; choose another id with --id")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".import-{uuid.uuid4().hex}")
    try:
        config = _fill(folder, staging, done)
        staging.replace(target)
        try:
            _insert_rows(store, done, metadata, config, name)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if any(not file.policy for file in store.checkpoint_files(done.experiment_id)):
        done.model = f"{done.experiment_id}/final"
    return done


def _fill(folder: Path, staging: Path, done: ImportResult) -> dict[str, Any]:
    """Copy the files to `staging`, convert configurations and metrics, and return the configuration of the
    experiment."""
    staging.mkdir()
    sources = _regular_files(folder, CHECKPOINTS)
    sources += [path for name in COPIED if (path := folder / name).is_file()]
    if not sources:
        raise InvalidInputError(
            f"{folder} is not an experiment folder: it contains neither checkpoints (*.pth) nor results"
        )
    for path in [*sources, *_regular_files(folder, *BESIDE_CHECKPOINTS)]:
        copy = staging / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        done.files += 1
    config = _convert_configs(folder, staging, done)
    for name, write in (
        ("dashboard_metrics/metrics.jsonl", write_metrics),
        ("rl_metrics/rl_training_metrics.json", write_rl_metrics),
    ):
        if (folder / name).is_file():
            points, skipped = write(folder / name, staging)
            done.points += points
            if skipped:
                done.remarks.append(f"{name}: {skipped} entries could not be read and were not imported")
    return config


def _regular_files(folder: Path, *patterns: str) -> list[Path]:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _convert_configs(folder: Path, staging: Path, done: ImportResult) -> dict[str, Any]:
    main: dict[str, Any] = {}
    for name in CONFIG_FILES:
        path = folder / name
        if not path.is_file():
            continue
        original = staging / "original" / name
        original.parent.mkdir(exist_ok=True)
        shutil.copy2(path, original)
        done.files += 1
        try:
            kind, converted, _ = convert(read_mapping(path))
        except ConfigError as error:
            done.remarks.append(f"{name} could not be converted; a copy is in original/: {error.message}")
            continue
        text = write_yaml(converted)
        (staging / name).write_text(text, encoding="utf-8")
        if kind == done.kind:
            main = converted
    return main


def _insert_rows(
    store: ArtifactStore, done: ImportResult, metadata: dict[str, Any], config: dict[str, Any], name: str | None
) -> None:
    engine = make_engine(database_url())
    try:
        require_schema(engine)
        with session_factory(engine).begin() as session:
            created = _time(metadata.get("created_at")) or datetime.now(UTC)
            session.add(
                Experiment(
                    id=done.experiment_id,
                    type=done.kind,
                    name=name,
                    config=config,
                    imported=True,
                    created_at=created,
                    source_experiment_id=metadata.get("source_experiment_id"),
                    source_checkpoint=metadata.get("source_checkpoint"),
                )
            )
            session.flush()
            for found in store.checkpoint_files(done.experiment_id):
                path = store.path(done.experiment_id, found.name)
                session.add(
                    Checkpoint(
                        experiment_id=done.experiment_id,
                        kind="policy" if found.policy else "model",
                        name=found.name,
                        sha256=sha256_of(path) if path.is_file() else None,
                        size_bytes=found.size_bytes,
                        created_at=found.modified_at,
                    )
                )
    except IntegrityError as error:
        raise ConflictError(f"experiment {done.experiment_id} already exists; choose another id with --id") from error
    except (OperationalError, ProgrammingError) as error:
        raise UnavailableError("the database is not reachable; start the local stack with `tidal up`") from error
    finally:
        engine.dispose()


def _experiments_dir() -> Path:
    settings, instance = get_settings(), read_instance()
    if "experiments_dir" not in settings.model_fields_set and instance is not None:
        return Path(instance.experiments_dir)
    return settings.experiments_dir


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} does not contain a JSON object")
    return values


def _kind(folder: Path, metadata: dict[str, Any]) -> str:
    kind = metadata.get("type")
    if kind in ("lm", "rl"):
        return str(kind)
    if kind is not None:
        raise InvalidInputError(f"{folder / 'metadata.json'}: type {kind!r} is unknown; it must be lm or rl")
    return "rl" if (folder / "rl_config.yaml").exists() or any(folder.glob("rl_checkpoint*.pth")) else "lm"


def _id_from(name: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_")
    if not cleaned:
        raise InvalidInputError(f"the folder name {name!r} cannot be used as an experiment id; choose one with --id")
    return cleaned[:200]


def _time(value: Any) -> datetime | None:
    try:
        return parse_utc(str(value))
    except ValueError:
        return None
