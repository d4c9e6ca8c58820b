"""Jobs that may train as one computation, and attempts that do."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("together", sa.String(64), nullable=True))
    some = sa.text("together IS NOT NULL")
    op.create_index("ix_jobs_together", "jobs", ["together", "status", "id"], sqlite_where=some, postgresql_where=some)
    op.add_column("attempts", sa.Column("together_with", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "together_with")
    op.drop_index("ix_jobs_together", "jobs")
    op.drop_column("jobs", "together")
