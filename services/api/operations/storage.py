"""The use of the disk that contains the artifact store.

`services.api.sizes` measures folders.
"""

from __future__ import annotations

import shutil

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.config import Settings
from common.db import Experiment
from services.api.sizes import SizeCache
from tidal_client.vocabulary import ExperimentType
from tidal_client.wire.storage import Storage, StoredExperiment

LARGEST = 10


def storage_overview(session: Session, store: ArtifactStore, settings: Settings, sizes_cache: SizeCache) -> Storage:
    """Return the size of the disk, the space that experiments and data use, and the largest experiments."""
    sizes = sizes_cache.sizes()
    existing = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    disk = shutil.disk_usage(existing)
    largest = sorted(sizes.experiments.items(), key=lambda item: (-item[1], item[0]))[:LARGEST]
    query = select(Experiment.id, Experiment.name).where(Experiment.id.in_([name for name, _ in largest]))
    datasets = session.scalars(select(Experiment.id).where(Experiment.type == ExperimentType.DATASET))
    named: dict[str, str | None] = dict(session.execute(query).all())
    return Storage(
        disk_bytes=disk.total,
        free_bytes=disk.free,
        experiments_bytes=sum(sizes.experiments.values()),
        experiments=len(sizes.experiments.keys() - set(datasets)),
        largest=[
            StoredExperiment(id=name, name=named[name], size_bytes=size) for name, size in largest if name in named
        ],
        data_bytes=sizes.data,
        retention_days=settings.retention_days,
        measured_at=sizes.at,
    )
