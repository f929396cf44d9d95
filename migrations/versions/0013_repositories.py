"""Repositories, what a sealed point is, and how far a job has come."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON(none_as_null=True)
POINT_COLUMNS = ("repository_id", "folder", "manifest_digest", "parents", "pinned", "is_encrypted", "left_out", "proofs")


def upgrade() -> None:
    _create_repositories()
    op.add_column("jobs", sa.Column("progress", JSON, nullable=True))
    with op.batch_alter_table("recovery_points") as points:
        points.alter_column("job_id", existing_type=sa.String(length=36), nullable=True)
        points.add_column(sa.Column("repository_id", sa.String(length=36), nullable=True))
        points.add_column(sa.Column("folder", sa.Text(), nullable=True))
        points.add_column(sa.Column("manifest_digest", sa.String(length=64), nullable=True))
        points.add_column(sa.Column("parents", JSON, nullable=True))
        points.add_column(sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.text("false")))
        points.add_column(sa.Column("is_encrypted", sa.Boolean(), nullable=False, server_default=sa.text("false")))
        points.add_column(sa.Column("left_out", JSON, nullable=True))
        points.add_column(sa.Column("proofs", JSON, nullable=True))
        points.add_column(sa.Column("is_domain_controller", sa.Boolean(), nullable=True))
        key = op.f("fk_recovery_points_repository_id_repositories")
        points.create_foreign_key(key, "repositories", ["repository_id"], ["id"], onupdate="CASCADE")
    op.create_index("ix_recovery_points_repository_id_created_at_id", "recovery_points", ["repository_id", "created_at", "id"])
    op.create_index("ix_recovery_points_state_created_at_id", "recovery_points", ["state", "created_at", "id"])
    _forget_texts()


def downgrade() -> None:
    op.drop_index("ix_recovery_points_state_created_at_id", table_name="recovery_points")
    op.drop_index("ix_recovery_points_repository_id_created_at_id", table_name="recovery_points")
    # Earlier versions cannot tell of a point that lies in a repository, or whose job is not on record.
    op.execute("DELETE FROM recovery_points WHERE job_id IS NULL OR repository_id IS NOT NULL")
    with op.batch_alter_table("recovery_points") as points:
        points.drop_constraint(op.f("fk_recovery_points_repository_id_repositories"), type_="foreignkey")
        for column in ("is_domain_controller", *reversed(POINT_COLUMNS)):
            points.drop_column(column)
        points.alter_column("job_id", existing_type=sa.String(length=36), nullable=False)
    op.drop_column("jobs", "progress")
    op.drop_table("repositories")
    _forget_texts()


def _create_repositories() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("registered_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("key_reference", sa.Text(), nullable=True),
        sa.Column("max_transfers", sa.Integer(), nullable=True),
        sa.Column("reserve_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_error", JSON, nullable=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("format_version", sa.Integer(), nullable=True),
        sa.Column("check_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("import_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("import_result", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("host_id", "path", name=op.f("uq_repositories_host_id_path")),
        sa.UniqueConstraint("registered_id", name=op.f("uq_repositories_registered_id")),
        sa.UniqueConstraint("name", name=op.f("uq_repositories_name")),
    )


def _forget_texts() -> None:
    """The documents of jobs and points have a new shape: `service.db.documents` writes them after the migration."""
    op.execute("DELETE FROM job_documents")
    op.execute("UPDATE recovery_points SET document = NULL")
