"""When an artifact's file was removed because its time was over."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("expired_at", sa.DateTime(timezone=True)))
    op.create_index("ix_artifacts_expired_at_created_at", "artifacts", ["expired_at", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_artifacts_expired_at_created_at", "artifacts")
    op.drop_column("artifacts", "expired_at")
