"""Lists are of one project: their indexes begin with it."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FILTERS = ("method", "model", "dataset")


def upgrade() -> None:
    for column in FILTERS:
        op.drop_index(f"ix_jobs_{column}_id", "jobs")
        op.create_index(f"ix_jobs_project_id_{column}_id", "jobs", ["project_id", column, "id"])


def downgrade() -> None:
    for column in FILTERS:
        op.drop_index(f"ix_jobs_project_id_{column}_id", "jobs")
        op.create_index(f"ix_jobs_{column}_id", "jobs", [column, "id"])
