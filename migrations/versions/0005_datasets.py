"""Allow jobs and experiments of type dataset.

Revision 0005. A downgrade deletes the rows of these jobs and experiments, but neither the datasets nor the folders of
the experiments.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD_TYPES = {
    "jobs": "type IN ('lm-training', 'rl-training', 'evaluation', 'ablation', 'analysis')",
    "experiments": "type IN ('lm', 'rl', 'evaluation', 'ablation', 'analysis')",
}


def upgrade() -> None:
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition.replace("'analysis'", "'analysis', 'dataset'"))


def downgrade() -> None:
    op.execute("DELETE FROM experiments WHERE type = 'dataset'")  # also deletes their jobs (ON DELETE CASCADE)
    for table, condition in OLD_TYPES.items():
        _check_type(table, condition)


def _check_type(table: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_type"), table)
    op.create_check_constraint(op.f(f"ck_{table}_type"), table, condition)
