"""Projects, their keys, and the answers that are kept for commands that are sent again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    projects()
    keys()
    idempotency_records()
    # One statement for both databases: SQLite adds a column with its foreign key, but no foreign key to a column.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN project_id VARCHAR(63) DEFAULT 'default' NOT NULL "
        "CONSTRAINT fk_jobs_project_id REFERENCES projects (id)"
    )
    op.create_index("ix_jobs_project_id_id", "jobs", ["project_id", "id"])
    op.create_index("ix_jobs_project_id_status_id", "jobs", ["project_id", "status", "id"])
    op.add_column("events", sa.Column("key_id", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("events", "key_id")
    op.drop_index("ix_jobs_project_id_status_id", "jobs")
    op.drop_index("ix_jobs_project_id_id", "jobs")
    # SQLite drops no column with a foreign key: the table is made anew, with the checks that Alembic would leave out
    found = sa.inspect(op.get_bind()).get_check_constraints("jobs")
    checks = tuple(sa.CheckConstraint(sa.text(check["sqltext"]), name=op.f(str(check["name"]))) for check in found)
    with op.batch_alter_table("jobs", table_args=checks) as jobs:
        jobs.drop_column("project_id")
    for table in ("idempotency_records", "keys", "projects"):
        op.drop_table(table)


def projects() -> None:
    made = op.create_table(
        "projects",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("queued_jobs", INTEGER, nullable=True),
        sa.Column("running_jobs", INTEGER, nullable=True),
        sa.Column("stored_bytes", INTEGER, nullable=True),
        sa.Column("requests_per_minute", INTEGER, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.execute(made.insert().values(id="default", created_at=sa.func.current_timestamp()))


def keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("last4", sa.String(length=4), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('admin', 'read', 'write')", name=op.f("ck_keys_scope")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_keys_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_keys_sha256")),
    )
    op.create_index("ix_keys_project_id_id", "keys", ["project_id", "id"])


def idempotency_records() -> None:
    op.create_table(
        "idempotency_records",
        sa.Column("project_id", sa.String(length=63), nullable=False),
        sa.Column("method", sa.String(length=8), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", INTEGER, nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_idempotency_records_project_id")),
        sa.PrimaryKeyConstraint("project_id", "method", "path", "key", name=op.f("pk_idempotency_records")),
    )
    op.create_index("ix_idempotency_records_expires_at", "idempotency_records", ["expires_at"])
