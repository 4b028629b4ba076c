"""Changes the name, tags and notes of an experiment. Deletes experiments: first the database rows, then the files."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, sessionmaker

from common.access import Actor
from common.artifacts import ArtifactStore
from common.audit import record_change
from common.db import Experiment, Job
from common.errors import ConflictError, NotFoundError
from services.api.callers import Caller
from services.api.operations.ownership import require_own_experiment
from services.api.schemas.experiments import ExperimentChange
from tidal_client.vocabulary import TERMINAL, TokenScope


def change_experiment(session: Session, experiment_id: str, wanted: ExperimentChange, actor: Actor) -> None:
    """Set the fields that the request contains. Raises NotFoundError."""
    experiment = _locked(session, experiment_id)
    if experiment is None:
        raise NotFoundError(f"there is no experiment {experiment_id!r}")
    before = {name: getattr(experiment, name) for name in sorted(wanted.model_fields_set)}
    after = {name: getattr(wanted, name) for name in before}
    if before == after:
        return
    for name, value in after.items():
        setattr(experiment, name, value)
    record_change(session, actor, "experiment.change", experiment_id, before=before, after=after)


def remove_experiment(
    sessions: sessionmaker[Session], store: ArtifactStore, experiment_id: str, caller: Caller
) -> None:
    """Delete the experiment with its jobs and their events, and with its checkpoints, metrics and logs.

    If the process dies after it has deleted the rows, a repeated request with the scope admin deletes the files. Raises
    NotFoundError, ForbiddenError if another token created the experiment, and ConflictError until all jobs that write
    to the experiment or read from it have ended.
    """
    with sessions.begin() as session:
        experiment = _locked(session, experiment_id)
        if experiment is not None:
            require_own_experiment(session, caller, experiment_id)
            _refuse_while_used(session, experiment_id)
            session.delete(experiment)
            before = {"name": experiment.name, "type": experiment.type, "tags": experiment.tags}
            record_change(session, caller, "experiment.delete", experiment_id, before=before)
        elif not caller.may(TokenScope.ADMIN):
            raise NotFoundError(f"there is no experiment {experiment_id!r}")
    try:
        store.delete(experiment_id)
    except NotFoundError:
        if experiment is None:
            raise


def _locked(session: Session, experiment_id: str) -> Experiment | None:
    return session.scalar(select(Experiment).where(Experiment.id == experiment_id).with_for_update())


def _refuse_while_used(session: Session, experiment_id: str) -> None:
    uses = or_(Experiment.id == experiment_id, Experiment.source_experiment_id == experiment_id)
    live = select(Job).join(Experiment, Experiment.id == Job.experiment_id).where(uses, Job.status.not_in(TERMINAL))
    job = session.scalars(live.order_by(Job.created_at).limit(1)).first()
    if job is None:
        return
    does = "belongs to the experiment" if job.experiment_id == experiment_id else "reads from the experiment"
    raise ConflictError(f"job {job.id} ({job.status}) {does}; cancel the job or wait until it ends")
