"""Create the table of saved analyses, and allow jobs and experiments of type analysis.

Revision 0003. A downgrade deletes the rows of these jobs and experiments, but not the folders of the experiments.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OLD_TYPES = {
    "jobs": "type IN ('lm-training', 'rl-training', 'evaluation', 'ablation')",
    "experiments": "type IN ('lm', 'rl', 'evaluation', 'ablation')",
}


def upgrade() -> None:
    op.create_table(
        "analyses",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('single', 'batch', 'sweep')", name=op.f("ck_analyses_kind")),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_analyses_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_analyses_job_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_analyses")),
    )
    op.create_index(
        "ix_analyses_listing",
        "analyses",
        ["experiment_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_analyses_job_id",
        "analyses",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition.replace("'ablation'", "'ablation', 'analysis'"))


def downgrade() -> None:
    op.drop_table("analyses")
    op.execute("DELETE FROM experiments WHERE type = 'analysis'")  # ON DELETE CASCADE also deletes their jobs
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition)


def _check_type(table: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_type"), table)
    op.create_check_constraint(op.f(f"ck_{table}_type"), table, condition)
