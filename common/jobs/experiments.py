"""Creates the experiment of a new job, and determines the name of the experiment.

A name is `YYYYMMDD-HHMMSS-commit_<short>-<word>_<hex>`: the time of the database (UTC), the Git commit of this
installation or `nogit`, a word for the type, and the first ten hex digits of a SHA-256. For a language model the word
is `config`, and the hash covers the configuration file as the trainer writes it with `common.config.dump_yaml`. For a
controller the word is `rl`, and the hash covers rl_config.yaml. For every other type the word is the type, and the hash
covers the whole payload. If a name is taken already, `-2`, `-3`, … is appended.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.config import PROJECT_ROOT, dump_yaml
from common.db import Experiment
from common.errors import ConflictError
from common.jobs.payloads import JobPayload, LmTrainingPayload, RlTrainingPayload

MAX_PER_SECOND = 1000
NO_COMMIT = "nogit"


@lru_cache(maxsize=1)
def commit_hash() -> str:
    """Return TIDAL_COMMIT (set in container images), else the short Git hash of the checkout, else `nogit`."""
    from_environment = os.environ.get("TIDAL_COMMIT", "").strip()
    if from_environment:
        return re.sub(r"[^0-9A-Za-z]", "", from_environment)[:12] or NO_COMMIT
    if not (PROJECT_ROOT / ".git").exists():
        return NO_COMMIT
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return NO_COMMIT
    return result.stdout.strip() if result.returncode == 0 and result.stdout.strip() else NO_COMMIT


def name_suffix(payload: JobPayload) -> str:
    """Return the last part of the name: `config_<hex>`, `rl_<hex>`, `evaluation_<hex>`, …"""
    source: BaseModel = payload
    kind: str = payload.experiment_type
    if isinstance(payload, LmTrainingPayload):
        source, kind = payload.config, "config"
    elif isinstance(payload, RlTrainingPayload):
        source, kind = payload.config, "rl"
    return f"{kind}_{hashlib.sha256(dump_yaml(source).encode()).hexdigest()[:10]}"


def create_experiment(
    session: Session, payload: JobPayload, *, name: str | None = None, tags: tuple[str, ...] = ()
) -> str:
    """Insert the experiment of a new job and return its id.

    Concurrent submissions may try the same name; the primary key admits only one of them, and the others try the next
    suffix. Raises ConflictError when too many experiments have this name.
    """
    time = session.scalar(select(func.to_char(func.timezone("UTC", func.now()), "YYYYMMDD-HH24MISS")))
    plain = f"{time}-commit_{commit_hash()}-{name_suffix(payload)}"
    source = payload.source_checkpoint
    values: dict[str, Any] = {
        "type": payload.experiment_type,
        "name": name,
        "tags": list(tags),
        "config": payload.model_dump(mode="json"),
        "source_experiment_id": source.split("/", 1)[0] if source else None,
        "source_checkpoint": source,
    }
    for number in range(1, MAX_PER_SECOND):
        candidate = plain if number == 1 else f"{plain}-{number}"
        statement = insert(Experiment).values(id=candidate, **values).on_conflict_do_nothing().returning(Experiment.id)
        if session.scalar(statement) is not None:
            return candidate
    raise ConflictError(f"{MAX_PER_SECOND} experiments have the name {plain} already; submit again in a second")
