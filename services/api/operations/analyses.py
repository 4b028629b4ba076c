"""Saved analyses: database rows that belong to an experiment. `analyze` and analysis jobs compute them."""

from __future__ import annotations

from typing import Any, get_args

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.orm import Session, undefer

from common.access import Actor
from common.analysis.result import all_finite
from common.audit import record_change
from common.db import Analysis, Experiment, Job
from common.errors import ConflictError, InvalidInputError, NotFoundError
from services.api.callers import Caller
from services.api.operations.experiments import find_experiment
from services.api.operations.ownership import require_own
from services.api.paging import newest_page
from services.api.schemas.analyses import SaveAnalysisRequest
from tidal_client.vocabulary import ANALYSIS_ID, AnalysisKind, ExperimentType, new_id
from tidal_client.wire.analysis import AnalysisList, AnalysisSummary, SavedAnalysis
from tidal_client.wire.base import extend_reply

KINDS: tuple[str, ...] = get_args(AnalysisKind)


def analyses_page(
    session: Session,
    experiment_id: str,
    *,
    limit: int,
    cursor: str | None,
    kind: str | None = None,
    derived: bool = True,
) -> AnalysisList:
    """Return a page of analyses, newest first. Raises NotFoundError.

    If `derived` is true, the page also contains the results of analysis jobs that used a checkpoint of this experiment.
    """
    find_experiment(session, experiment_id)
    mine = Analysis.experiment_id == experiment_id
    if derived:
        made = select(Experiment.id).where(
            Experiment.type == ExperimentType.ANALYSIS, Experiment.source_experiment_id == experiment_id
        )
        mine = or_(mine, Analysis.experiment_id.in_(made))
    query = select(Analysis).where(mine)
    if kind is not None:
        query = query.where(Analysis.kind == kind)
    page, following = newest_page(session, query, Analysis.created_at, Analysis.id, limit=limit, cursor=cursor)
    return AnalysisList(analyses=[AnalysisSummary.model_validate(row) for (row,) in page], next_cursor=following)


def get_analysis(session: Session, analysis_id: str) -> SavedAnalysis:
    """Return a saved analysis with its result. Raises NotFoundError."""
    query = select(Analysis).where(Analysis.id == analysis_id).options(undefer(Analysis.result))
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no analysis {analysis_id!r}")
    return SavedAnalysis.model_validate(row)


def save_analysis(session: Session, experiment_id: str, body: SaveAnalysisRequest, actor: Actor) -> SavedAnalysis:
    """Save a result with an experiment.

    Raises InvalidInputError for an unknown kind or a number that is not finite, and NotFoundError for an unknown
    experiment.
    """
    if body.result.kind not in KINDS:  # the reply type accepts unknown kinds, but the api does not store them
        raise InvalidInputError.at(
            "body.result.kind", f"Input should be {', '.join(map(repr, KINDS[:-1]))} or {KINDS[-1]!r}"
        )
    result: dict[str, Any] = body.result.model_dump(mode="python", by_alias=True)
    if not all_finite(result):
        problem = "it contains a number that is not finite; send the reply of the analysis unchanged"
        raise InvalidInputError.at("body.result", problem)
    find_experiment(session, experiment_id)
    row = session.scalars(
        insert(Analysis)
        .values(
            id=new_id(ANALYSIS_ID),
            experiment_id=experiment_id,
            kind=body.result.kind,
            token_id=actor.token_id,
            name=body.name,
            request=body.result.request,
            result=result,
        )
        .returning(Analysis)
    ).one()
    after = {"experiment": experiment_id, "kind": row.kind, "name": row.name}
    record_change(session, actor, "analysis.save", row.id, after=after)
    return extend_reply(SavedAnalysis, AnalysisSummary.model_validate(row), result=body.result)


def delete_analysis(session: Session, analysis_id: str, caller: Caller) -> None:
    """Delete an analysis.

    Raises NotFoundError, ForbiddenError if another token saved it, or ConflictError until the job that created it has
    ended.
    """
    row = session.get(Analysis, analysis_id)
    if row is None:
        raise NotFoundError(f"there is no analysis {analysis_id!r}")
    require_own(caller, _saved_by(session, row), f"analysis {analysis_id!r}")
    _require_ended(session, [row.job_id] if row.job_id else [])
    before = {"experiment": row.experiment_id, "kind": row.kind, "name": row.name}
    record_change(session, caller, "analysis.delete", analysis_id, before=before)
    session.execute(delete(Analysis).where(Analysis.id == analysis_id))


def delete_analyses(session: Session, experiment_id: str, caller: Caller) -> int:
    """Delete all analyses of an experiment and return how many there were. Raises the same errors as
    `delete_analysis`."""
    find_experiment(session, experiment_id)
    rows = session.scalars(select(Analysis).where(Analysis.experiment_id == experiment_id)).all()
    for row in rows:
        require_own(caller, _saved_by(session, row), f"analysis {row.id!r}")
    _require_ended(session, [row.job_id for row in rows if row.job_id is not None])
    ids = [row.id for row in rows]
    if ids:
        record_change(session, caller, "analysis.delete", experiment_id, before={"analyses": ids})
    deletion = delete(Analysis).where(Analysis.id.in_(ids)).returning(Analysis.id)
    return len(session.scalars(deletion, execution_options={"synchronize_session": False}).all())


def _saved_by(session: Session, row: Analysis) -> str | None:
    """Return the id of the named token that saved an analysis or submitted its job."""
    if row.job_id is None:
        return row.token_id
    return session.scalar(select(Job.token_id).where(Job.id == row.job_id))


def _require_ended(session: Session, jobs: list[str]) -> None:
    """Raise ConflictError if one of the jobs has not ended, because that job may save its analysis again."""
    if not jobs:
        return
    query = select(Job.id, Job.status).where(Job.id.in_(jobs), Job.finished_at.is_(None)).order_by(Job.id)
    live = session.execute(query.with_for_update()).first()
    if live is not None:
        raise ConflictError(
            f"job {live[0]} is {live[1]} and may save its analysis again; cancel it or wait until it ends",
            code="job_is_live",
        )
