"""Decides who may delete an object: the token that created it, and tokens with the scope admin."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.db import Job
from common.errors import ForbiddenError
from services.api.callers import Caller
from tidal_client.vocabulary import TokenScope


def require_own(caller: Caller, token_id: str | None, what: str) -> None:
    """Raise ForbiddenError `not_yours` if `caller` may not delete `what`, which the token `token_id` created.

    `token_id` is None if the administrator created it, or if its creator is unknown.
    """
    if not caller.may(TokenScope.ADMIN) and (token_id is None or token_id != caller.token_id):
        raise ForbiddenError(
            f"{what} was not created with the token {caller.name!r}; only a token with the scope admin may delete it",
            code="not_yours",
        )


def require_own_experiment(session: Session, caller: Caller, experiment_id: str) -> None:
    """Raise ForbiddenError `not_yours` if `caller` may not delete the experiment or its files."""
    token_id = session.scalar(select(Job.token_id).where(Job.experiment_id == experiment_id))
    require_own(caller, token_id, f"experiment {experiment_id!r}")
