"""Outlines of chunks of metric points. Chunks that are there have none and are read whole."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("points", sa.Column("outline", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("points", "outline")
