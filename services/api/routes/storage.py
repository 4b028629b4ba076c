"""`/api/storage`: the use of the disk that contains the artifact store."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from services.api.auth import ContextDep, Reader
from services.api.context import session_of
from services.api.operations import storage
from tidal_client.wire.storage import Storage

router = APIRouter(prefix="/api/storage", tags=["service"], dependencies=[Reader])


@router.get("", summary="Show the use of the disk")
def show(context: ContextDep, session: Annotated[Session, Depends(session_of, scope="function")]) -> Storage:
    """Returns the size of the disk of the artifact store, its free space, the sizes of experiments and data, the
    largest experiments, and the retention period."""
    return storage.storage_overview(session, context.store, context.settings, context.sizes)
