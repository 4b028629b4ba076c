"""Let the database enforce status transitions and the fencing of checkpoints, and refuse changes of events.

Revision 0002. Each UPDATE that changes the status of a job sets the column `moved_by` to the writer, for example owner
or reaper. The trigger checks (old status, new status, writer) against the table in common.jobs.status and clears the
column. docs/decisions/0034 explains why.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JOBS_GUARD = """
CREATE OR REPLACE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    active CONSTANT text[] := ARRAY['provisioning', 'starting', 'running', 'completing', 'stopping'];
    severity CONSTANT text[] := ARRAY['run', 'pause', 'complete', 'stop'];
    writer CONSTANT text := NEW.moved_by;
    problem text;
BEGIN
    NEW.moved_by := NULL;
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'pending' OR NEW.attempt <> 0 THEN
            RAISE EXCEPTION 'job % begins % at attempt %, not pending at 0', NEW.id, NEW.status, NEW.attempt
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;

    IF NEW.id <> OLD.id OR NEW.experiment_id <> OLD.experiment_id OR NEW.type <> OLD.type THEN
        problem := 'keeps its id, type and experiment';
    ELSIF array_position(severity, NEW.desired_state) < array_position(severity, OLD.desired_state)
        AND NOT (OLD.desired_state = 'pause' AND NEW.desired_state = 'run') THEN
        problem := format('is asked to %s; %s would be less', OLD.desired_state, NEW.desired_state);
    ELSIF NEW.lease_owner <> OLD.lease_owner THEN
        problem := format('is leased to %s; another owner needs a claim', OLD.lease_owner);
    ELSIF NEW.attempt <> OLD.attempt + (OLD.status = 'pending' AND NEW.status = 'provisioning')::int THEN
        problem := format('goes from attempt %s to %s; a claim adds 1, nothing else', OLD.attempt, NEW.attempt);
    ELSIF NEW.status <> OLD.status THEN
        IF OLD.status IN ('completed', 'failed', 'cancelled') THEN
            problem := format('is %s and never moves again', OLD.status);
        ELSIF writer IS NULL THEN
            problem := 'changes its status: name the writer in the UPDATE, moved_by: api, claimer, owner or reaper';
        ELSIF (CASE writer
            WHEN 'api' THEN
                (OLD.status, NEW.status) IN (('pending', 'cancelled'), ('paused', 'pending'), ('paused', 'cancelled'))
            WHEN 'claimer' THEN
                (OLD.status, NEW.status) = ('pending', 'provisioning')
            WHEN 'owner' THEN
                (OLD.status, NEW.status) IN (
                    ('provisioning', 'starting'), ('starting', 'running'), ('running', 'completing'),
                    ('completing', 'completed'), ('running', 'paused'), ('stopping', 'cancelled'))
                OR (OLD.status = ANY (active) AND NEW.status IN ('stopping', 'pending', 'failed'))
                OR (OLD.status = 'stale' AND NEW.status = OLD.status_before_stale)
            WHEN 'reaper' THEN
                (OLD.status = ANY (active) AND NEW.status = 'stale')
                OR (OLD.status = 'stale' AND NEW.status IN ('pending', 'cancelled', 'failed'))
            ELSE false END) IS NOT TRUE THEN
            problem := format('may not be moved from %s to %s by %s', OLD.status, NEW.status, writer);
        ELSIF NEW.status = 'provisioning' AND writer = 'claimer' AND OLD.not_before > now() THEN
            problem := format('may not start before %s', OLD.not_before);
        ELSIF NEW.status = 'stale' AND OLD.lease_expires_at >= now() THEN
            problem := format('is leased until %s', OLD.lease_expires_at);
        ELSIF NEW.status = 'stale'
            AND (NEW.status_before_stale <> OLD.status OR NEW.lease_expires_at <> OLD.lease_expires_at) THEN
            problem := 'keeps its lease and former status while it is stale';
        ELSIF (OLD.status = 'stale' OR writer = 'claimer') AND NEW.lease_expires_at <= now() THEN
            problem := 'needs a lease that ends in the future';
        END IF;
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'job % %', OLD.id, problem USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""

JOB_EVENTS_GUARD = """
CREATE FUNCTION job_events_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = OLD.job_id) THEN
        RETURN OLD;  -- the job itself was deleted
    END IF;
    RAISE EXCEPTION 'event % of job % stays as it was written', OLD.id, OLD.job_id USING ERRCODE = 'check_violation';
END $$
"""

CHECKPOINTS_GUARD = """
CREATE FUNCTION checkpoints_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.job_id IS NULL THEN
        RETURN NEW;  -- imported, or its job was deleted
    END IF;
    IF TG_OP = 'UPDATE' AND
        (NEW.job_id, NEW.experiment_id, NEW.attempt, NEW.name, NEW.kind, NEW.step, NEW.sha256, NEW.size_bytes)
        IS NOT DISTINCT FROM
        (OLD.job_id, OLD.experiment_id, OLD.attempt, OLD.name, OLD.kind, OLD.step, OLD.sha256, OLD.size_bytes) THEN
        RETURN NEW;
    END IF;
    PERFORM 1 FROM jobs WHERE id = NEW.job_id AND experiment_id = NEW.experiment_id AND attempt = NEW.attempt
        AND lease_owner IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'attempt % of job % does not own it and registers no %', NEW.attempt, NEW.job_id, NEW.name
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""

OLD_JOBS_GUARD = """
CREATE OR REPLACE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'job % is % and never moves again', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.attempt < OLD.attempt THEN
        RAISE EXCEPTION 'attempt of job % must not fall from % to %', OLD.id, OLD.attempt, NEW.attempt
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.id <> OLD.id OR NEW.experiment_id <> OLD.experiment_id OR NEW.type <> OLD.type THEN
        RAISE EXCEPTION 'job % keeps its id, type and experiment', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""

CHECKS = {
    "cancel": "NOT cancel_requested OR desired_state = 'stop'",
    "checkpoint": "checkpoint_step IS NULL OR checkpoint_ref IS NOT NULL",
    "resumable": "desired_state IN ('run', 'stop') OR type IN ('lm-training', 'rl-training')",
    "started": "(started_at IS NOT NULL) = (attempt > 0)",
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("moved_by", sa.Text(), nullable=True))
    for name, condition in CHECKS.items():
        op.create_check_constraint(op.f(f"ck_jobs_{name}"), "jobs", condition)
    op.drop_index("ix_jobs_experiment_id", "jobs")
    op.create_unique_constraint(op.f("uq_jobs_experiment_id"), "jobs", ["experiment_id"])
    op.create_index(
        "ix_jobs_completed",
        "jobs",
        ["type", sa.literal_column("finished_at DESC")],
        unique=False,
        postgresql_where=sa.text("status = 'completed'"),
    )
    op.execute("DROP TRIGGER jobs_guard ON jobs")
    op.execute(JOBS_GUARD)
    op.execute("CREATE TRIGGER jobs_guard BEFORE INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()")
    op.execute(JOB_EVENTS_GUARD)
    op.execute(
        "CREATE TRIGGER job_events_guard BEFORE UPDATE OR DELETE ON job_events"
        " FOR EACH ROW EXECUTE FUNCTION job_events_guard()"
    )
    op.execute(CHECKPOINTS_GUARD)
    op.execute(
        "CREATE TRIGGER checkpoints_guard BEFORE INSERT OR UPDATE ON checkpoints"
        " FOR EACH ROW EXECUTE FUNCTION checkpoints_guard()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER checkpoints_guard ON checkpoints")
    op.execute("DROP FUNCTION checkpoints_guard()")
    op.execute("DROP TRIGGER job_events_guard ON job_events")
    op.execute("DROP FUNCTION job_events_guard()")
    op.execute("DROP TRIGGER jobs_guard ON jobs")
    op.execute(OLD_JOBS_GUARD)
    op.execute("CREATE TRIGGER jobs_guard BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()")
    op.drop_index("ix_jobs_completed", "jobs")
    op.drop_constraint(op.f("uq_jobs_experiment_id"), "jobs")
    op.create_index("ix_jobs_experiment_id", "jobs", ["experiment_id"], unique=False)
    for name in CHECKS:
        op.drop_constraint(op.f(f"ck_jobs_{name}"), "jobs")
    op.drop_column("jobs", "moved_by")
