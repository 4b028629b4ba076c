"""Allow jobs and experiments of type headroom.

Revision 0007. A downgrade deletes the rows of these jobs and experiments, but not the folders of the experiments.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLD_TYPES = {
    "jobs": "type IN ('lm-training', 'rl-training', 'evaluation', 'ablation', 'analysis', 'dataset')",
    "experiments": "type IN ('lm', 'rl', 'evaluation', 'ablation', 'analysis', 'dataset')",
}


def upgrade() -> None:
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition.replace("'evaluation'", "'evaluation', 'headroom'"))


def downgrade() -> None:
    op.execute("DELETE FROM experiments WHERE type = 'headroom'")  # also deletes their jobs (ON DELETE CASCADE)
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition)


def _check_type(table: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_type"), table)
    op.create_check_constraint(op.f(f"ck_{table}_type"), table, condition)
