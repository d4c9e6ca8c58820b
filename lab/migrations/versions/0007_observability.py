"""The trace of a job's submission, what GPUs do, and every try to deliver a message."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.String(55)))
    op.add_column("workers", sa.Column("gpus", sa.JSON(), server_default="[]", nullable=False))
    op.create_table(
        "delivery_tries",
        sa.Column("delivery_id", sa.String(32), nullable=False),
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Double()),
        sa.Column("answer_status", INTEGER),
        sa.Column("error", sa.Text()),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_delivery_tries_delivery_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_delivery_tries"),
    )


def downgrade() -> None:
    op.drop_table("delivery_tries")
    op.drop_column("workers", "gpus")
    op.drop_column("jobs", "traceparent")
