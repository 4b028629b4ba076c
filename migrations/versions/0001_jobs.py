"""Create the tables of jobs, their events, experiments, checkpoints and the outbox.

Revision 0001 is the first one. A trigger enforces rules that compare the old row with the new one: a job in a terminal
status keeps it, `attempt` never decreases, and a job keeps its experiment.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GUARD = """
CREATE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
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


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("source_experiment_id", sa.Text(), nullable=True),
        sa.Column("source_checkpoint", sa.Text(), nullable=True),
        sa.Column("imported", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("type IN ('lm', 'rl', 'evaluation', 'ablation')", name=op.f("ck_experiments_type")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
    )
    op.create_index(
        "ix_experiments_listing",
        "experiments",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_experiments_tags", "experiments", ["tags"], unique=False, postgresql_using="gin")
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(kind = 'doorbell') = (job_id IS NULL)", name=op.f("ck_outbox_job_id")),
        sa.CheckConstraint("(kind = 'doorbell') = (queue IS NOT NULL)", name=op.f("ck_outbox_queue")),
        sa.CheckConstraint("kind IN ('doorbell', 'job-update', 'wish')", name=op.f("ck_outbox_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_published_at",
        "outbox",
        ["published_at"],
        unique=False,
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.create_index(
        "ix_outbox_unpublished", "outbox", ["id"], unique=False, postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("gpus", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("desired_state", sa.Text(), server_default=sa.text("'run'"), nullable=False),
        sa.Column("desired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status_before_stale", sa.Text(), nullable=True),
        sa.Column("stale_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("infra_restarts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("user_failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("checkpoint_ref", sa.Text(), nullable=True),
        sa.Column("checkpoint_step", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_step", sa.BigInteger(), nullable=True),
        sa.Column("progress_total_steps", sa.BigInteger(), nullable=True),
        sa.Column("progress_eta_seconds", sa.Double(), nullable=True),
        sa.Column("progress_phase", sa.Text(), nullable=True),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("idempotency_hash", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))",
            name=op.f("ck_jobs_finished"),
        ),
        sa.CheckConstraint(
            "(lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL AND attempt > 0) = (status IN "
            "('provisioning', 'starting', 'running', 'completing', 'stopping', 'stale')) AND (lease_owner IS "
            "NULL) = (lease_expires_at IS NULL)",
            name=op.f("ck_jobs_lease"),
        ),
        sa.CheckConstraint(
            "(status_before_stale IS NOT NULL AND stale_at IS NOT NULL) = (status = 'stale') AND "
            "(status_before_stale IS NULL) = (stale_at IS NULL)",
            name=op.f("ck_jobs_stale"),
        ),
        sa.CheckConstraint("desired_state IN ('run', 'pause', 'complete', 'stop')", name=op.f("ck_jobs_desired_state")),
        sa.CheckConstraint(
            "status <> 'completed' OR desired_state <> 'stop'", name=op.f("ck_jobs_completed_not_stopped")
        ),
        sa.CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name=op.f("ck_jobs_failed_has_code")),
        sa.CheckConstraint(
            "status <> 'paused' OR (desired_state = 'pause' AND checkpoint_ref IS NOT NULL)",
            name=op.f("ck_jobs_paused"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'provisioning', 'starting', 'running', 'completing', 'stopping', 'paused', "
            "'stale', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_jobs_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('stopping', 'cancelled') OR desired_state = 'stop'", name=op.f("ck_jobs_stopped_by_wish")
        ),
        sa.CheckConstraint(
            "status_before_stale IS NULL OR status_before_stale IN ('provisioning', 'starting', 'running', "
            "'completing', 'stopping')",
            name=op.f("ck_jobs_status_before_stale"),
        ),
        sa.CheckConstraint(
            "type IN ('lm-training', 'rl-training', 'evaluation', 'ablation')", name=op.f("ck_jobs_type")
        ),
        sa.CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name=op.f("ck_jobs_idempotency")),
        sa.CheckConstraint(
            "attempt >= 0 AND infra_restarts >= 0 AND user_failures >= 0", name=op.f("ck_jobs_counters")
        ),
        sa.CheckConstraint("gpus BETWEEN 0 AND 64", name=op.f("ck_jobs_gpus")),
        sa.CheckConstraint("priority BETWEEN -100 AND 100", name=op.f("ck_jobs_priority")),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_jobs_experiment_id_experiments"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name=op.f("fk_jobs_parent_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["queue", sa.literal_column("priority DESC"), "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_jobs_experiment_id", "jobs", ["experiment_id"], unique=False)
    op.create_index(
        "ix_jobs_leased",
        "jobs",
        ["type", "lease_expires_at"],
        unique=False,
        postgresql_where=sa.text(
            "status IN ('provisioning', 'starting', 'running', 'completing', 'stopping', 'stale')"
        ),
    )
    op.create_index(
        "ix_jobs_listing", "jobs", [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "ix_jobs_parent_id", "jobs", ["parent_id"], unique=False, postgresql_where=sa.text("parent_id IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_status_listing",
        "jobs",
        ["status", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_jobs_idempotency_key",
        "jobs",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "kind <> 'training' OR (step IS NOT NULL AND sha256 IS NOT NULL)", name=op.f("ck_checkpoints_training")
        ),
        sa.CheckConstraint(
            "kind IN ('training', 'model', 'policy', 'result', 'other')", name=op.f("ck_checkpoints_kind")
        ),
        sa.CheckConstraint("size_bytes IS NULL OR size_bytes >= 0", name=op.f("ck_checkpoints_size_bytes")),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_checkpoints_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("experiment_id", "name", name=op.f("uq_checkpoints_experiment_id_name")),
    )
    op.create_index("ix_checkpoints_job_id", "checkpoints", ["job_id"], unique=False)
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("actor IN ('api', 'worker', 'reaper', 'system')", name=op.f("ck_job_events_actor")),
        sa.CheckConstraint("from_status IS NULL OR to_status IS NOT NULL", name=op.f("ck_job_events_statuses")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index("ix_job_events_job_id_id", "job_events", ["job_id", "id"], unique=False)
    op.create_index(
        "uq_job_events_terminal",
        "job_events",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("to_status IN ('completed', 'failed', 'cancelled')"),
    )
    op.execute(GUARD)
    op.execute("CREATE TRIGGER jobs_guard BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()")


def downgrade() -> None:
    for table in ("job_events", "checkpoints", "jobs", "outbox", "experiments"):
        op.drop_table(table)
    op.execute("DROP FUNCTION jobs_guard()")
