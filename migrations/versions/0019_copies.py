"""Copies of repositories: where they are, which points are there, and what attacks on their stores came to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | Sequence[str] | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "copies",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("repository_id", sa.String(36), sa.ForeignKey("repositories.id", onupdate="CASCADE", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("key_reference", sa.Text(), nullable=True),
        sa.Column("retain_days", sa.Integer(), nullable=True),
        sa.Column("lock_mode", sa.String(16), nullable=False),
        sa.Column("rate_limit_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("immutability", sa.String(16), nullable=False),
        sa.Column("proven_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answers", sa.JSON(), nullable=True),
        sa.Column("proof_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("repository_id", "name"),
        sa.UniqueConstraint("repository_id", "place"),
    )
    op.create_index("ix_copies_proof_due_at", "copies", ["proof_due_at"])
    op.create_table(
        "copied_points",
        sa.Column("copy_id", sa.String(36), sa.ForeignKey("copies.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("point_id", sa.String(36), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.String(36), nullable=False),
        sa.Column("domain_name", sa.String(255), nullable=False),
        sa.Column("point_in_time_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("parents", sa.JSON(), nullable=False),
        sa.Column("manifest_digest", sa.String(64), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_by", sa.String(16), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index("ix_copied_points_copy_id_point_in_time_at", "copied_points", ["copy_id", "point_in_time_at", "point_id"])
    op.create_index("ix_copied_points_point_id", "copied_points", ["point_id"])
    op.create_table(
        "copy_proofs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("copy_id", sa.String(36), sa.ForeignKey("copies.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("immutability", sa.String(16), nullable=False),
        sa.Column("lock_mode", sa.String(16), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("why_not", sa.Text(), nullable=True),
    )
    op.create_index("ix_copy_proofs_copy_id_at", "copy_proofs", ["copy_id", "at"])
    op.add_column("recovery_points", sa.Column("retained_until", sa.DateTime(timezone=True), nullable=True))
    # Their texts have a field more, and are written again after the migration.
    op.execute("UPDATE recovery_points SET document = NULL")


def downgrade() -> None:
    with op.batch_alter_table("recovery_points") as points:
        points.drop_column("retained_until")
    op.execute("UPDATE recovery_points SET document = NULL")
    op.drop_table("copy_proofs")
    op.drop_table("copied_points")
    op.drop_table("copies")
