"""Store with each job what was predicted for it, and what it has needed.

Revision 0006. A downgrade drops both columns. Jobs from before the upgrade have neither.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("prediction", postgresql.JSONB(), nullable=True))
    op.add_column("jobs", sa.Column("measurement", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "measurement")
    op.drop_column("jobs", "prediction")
