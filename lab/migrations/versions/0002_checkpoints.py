"""Checkpoints; how long a job has run; batches of events that are stored once; late writes that were refused."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("step", INTEGER, autoincrement=False, nullable=False),
        sa.Column("attempt", INTEGER, nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("size", INTEGER, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_checkpoints")),
    )
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("ran_seconds", sa.Double(), nullable=False, server_default="0"))
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("first_step", INTEGER, nullable=False, server_default="0"))
        attempts.add_column(sa.Column("batches", INTEGER, nullable=False, server_default="0"))
        attempts.add_column(sa.Column("refused_writes", INTEGER, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("refused_writes")
        attempts.drop_column("batches")
        attempts.drop_column("first_step")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("ran_seconds")
    op.drop_table("checkpoints")
