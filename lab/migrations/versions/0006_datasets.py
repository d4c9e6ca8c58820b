"""The table of data sets that users have sent."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("channels", INTEGER, nullable=False),
        sa.Column("height", INTEGER, nullable=False),
        sa.Column("width", INTEGER, nullable=False),
        sa.Column("classes", INTEGER, nullable=False),
        sa.Column("class_names", sa.JSON(none_as_null=True)),
        sa.Column("train_images", INTEGER, nullable=False),
        sa.Column("test_images", INTEGER, nullable=False),
        sa.Column("bytes", INTEGER, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_datasets_project_id"),
        sa.UniqueConstraint("project_id", "name", name="uq_datasets_project_id_name"),
        sa.UniqueConstraint("project_id", "sha256", name="uq_datasets_project_id_sha256"),
    )
    op.create_index("ix_datasets_sha256", "datasets", ["sha256"])


def downgrade() -> None:
    op.drop_table("datasets")
