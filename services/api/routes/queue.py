"""`/api/queue`: the waiting jobs, the concurrency limits and the workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session

from common.jobs.waiting_line import HORIZON
from services.api.auth import ContextDep, Reader
from services.api.context import session_of
from services.api.operations import queue
from tidal_client.wire.queue import QueueList

router = APIRouter(prefix="/api/queue", tags=["jobs"])


@router.get("", summary="Show the queue", dependencies=[Reader])
def show(
    context: ContextDep,
    session: Annotated[Session, Depends(session_of, scope="function")],
    limit: Annotated[int, Query(ge=0, le=HORIZON, description="Maximum number of waiting jobs per type.")] = HORIZON,
) -> QueueList:
    """Returns the waiting jobs of each queue, in the order in which workers claim them, with predicted start times.

    Also returns the concurrency limits, the numbers of running jobs and the workers.
    """
    return queue.queue_overview(session, context.outlook, limit=limit)
