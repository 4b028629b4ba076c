"""Checkpoints: lists the files in the store with step and hash from the database, and finds the file to download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore, CheckpointFile, checkpoint_vocabulary, split_reference
from common.config.tokenizers import VOCABULARY_FILE
from common.db import Checkpoint, Experiment
from common.errors import InvalidInputError, NotFoundError
from services.api.operations.experiments import find_experiment
from services.api.paging import newest_page
from tidal_client.wire.checkpoint import CheckpointGroup, CheckpointList, CheckpointOverview, CheckpointReply
from tidal_client.wire.vocabulary import VocabularyReply

Format = Literal["safetensors", "pth"]
WEIGHTS = "weights.safetensors"


def experiment_checkpoints(
    session: Session, store: ArtifactStore, experiment_id: str, *, root_path: str = ""
) -> CheckpointList:
    """Return the checkpoints of an experiment: final files first, then training checkpoints, newest first.

    `root_path` is the prefix under which a proxy serves the api, without a trailing `/`; download links begin with it.
    Raises NotFoundError.
    """
    find_experiment(session, experiment_id)
    return CheckpointList(experiment_id=experiment_id, checkpoints=_list(session, store, experiment_id, root_path))


def checkpoint_overview(
    session: Session, store: ArtifactStore, *, limit: int, cursor: str | None, root_path: str = ""
) -> CheckpointOverview:
    """Return a page of checkpoints, grouped by experiment, newest experiment first.

    `limit` counts experiments, including those without checkpoints, which the reply does not contain.
    """
    page, following = newest_page(
        session, select(Experiment), Experiment.created_at, Experiment.id, limit=limit, cursor=cursor
    )
    groups = [
        CheckpointGroup(
            experiment_id=row.id,
            type=row.type,
            name=row.name,
            created_at=row.created_at,
            checkpoints=_list(session, store, row.id, root_path),
        )
        for (row,) in page
    ]
    return CheckpointOverview(experiments=[group for group in groups if group.checkpoints], next_cursor=following)


def file_to_send(store: ArtifactStore, experiment_id: str, name: str, form: Format | None) -> Path:
    """Return the path of the file to download: a final model in the given format, the weights of a training checkpoint,
    or the vocabulary of the experiment.

    Only the vocabulary and files that `checkpoint_files` lists can be downloaded. Raises NotFoundError. The code of the
    error is `format_not_available` if the checkpoint exists, but not in this format, because the api does not convert
    files.
    """
    path = store.resolve(f"{experiment_id}/{name}")
    known = store.checkpoint_files(experiment_id)
    reference = store.reference(path).split("/", 1)[1]
    if reference == VOCABULARY_FILE and form is None:
        return path
    listed = {file.name for file in known}
    inside = reference.rpartition("/")[0] in listed and path.is_file()
    if reference not in listed and not inside:
        raise NotFoundError(
            f"{name!r} is not a checkpoint of experiment {experiment_id!r}; use a name from the list of its checkpoints"
        )
    if path.is_dir():
        path = path / WEIGHTS
    if form is not None and path.suffix != f".{form}":
        path = path.with_suffix(f".{form}")
        if path.name not in listed:
            raise NotFoundError(
                f"{experiment_id}/{name} does not exist as {form}; final models are written in both formats, "
                "training checkpoints as safetensors",
                code="format_not_available",
            )
    if not path.is_file():
        raise NotFoundError(f"{experiment_id}/{name} contains no weights to download", code="format_not_available")
    return path


def check_reference(store: ArtifactStore, reference: str, *, location: str, policy: bool) -> str:
    """Return a reference from a request as `<id>/<file>`, with aliases resolved.

    If `policy` is true, the checkpoint must be a controller; if it is false, a language model. Raises InvalidInputError
    if the checkpoint is of the wrong kind or does not exist.
    """
    try:
        path = store.resolve(reference.strip())
    except (InvalidInputError, NotFoundError) as error:
        raise InvalidInputError.at(location, error.message) from None
    found = store.reference(path)
    experiment_id, name = found.split("/", 1)
    file = next((file for file in store.checkpoint_files(experiment_id) if file.name == name), None)
    if file is None:
        raise InvalidInputError.at(
            location, f"{reference!r} is not a checkpoint; name a model file or a checkpoint folder"
        )
    if file.policy != policy:
        wanted, other = ("controller", "language model") if policy else ("language model", "controller")
        raise InvalidInputError.at(location, f"{reference!r} is a {other}, but a {wanted} is needed")
    return found


def model_vocabulary(store: ArtifactStore, reference: str) -> VocabularyReply | None:
    """Return the vocabulary of a language model, or None if its manifest cannot be read."""
    found = checkpoint_vocabulary(store.path(*split_reference(reference)))
    return None if found is None else VocabularyReply.model_validate(found)


def _list(session: Session, store: ArtifactStore, experiment_id: str, root_path: str) -> list[CheckpointReply]:
    rows = {
        row.name: row for row in session.scalars(select(Checkpoint).where(Checkpoint.experiment_id == experiment_id))
    }
    return [
        _reply(store, experiment_id, file, rows.get(file.name), root_path)
        for file in store.checkpoint_files(experiment_id)
    ]


def _reply(
    store: ArtifactStore, experiment_id: str, file: CheckpointFile, row: Checkpoint | None, root_path: str
) -> CheckpointReply:
    kind = row.kind if row is not None else "training" if file.kind == "step" else "policy" if file.policy else "model"
    return CheckpointReply(
        name=file.name,
        reference=f"{experiment_id}/{file.name}",
        kind=kind,
        step=row.step if row is not None else _step(file.name),
        sha256=row.sha256 if row is not None else None,
        size_bytes=file.size_bytes,
        created_at=row.created_at if row is not None else file.modified_at,
        usable_as_base=not file.policy,
        usable_as_policy=file.policy,
        best=file.best,
        vocabulary=None if file.policy else model_vocabulary(store, f"{experiment_id}/{file.name}"),
        download=f"{root_path}/api/experiments/{quote(experiment_id)}/checkpoints/{quote(file.name)}",
    )


def _step(name: str) -> int | None:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else None
