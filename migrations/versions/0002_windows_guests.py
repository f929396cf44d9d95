"""Windows guests: what VSS did, and what is remembered of a guest from one look to the next."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("vss", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("vss_outcome", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("writer_failed", sa.Boolean(), nullable=True))
    op.add_column("jobs", sa.Column("auto_recovery", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_jobs_vss_outcome_created_at_id", "jobs", ["vss_outcome", "created_at", "id"])
    op.create_index("ix_jobs_writer_failed_created_at_id", "jobs", ["writer_failed", "created_at", "id"])
    op.create_table(
        "guest_memories",
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("domain_id", name=op.f("pk_guest_memories")),
    )


def downgrade() -> None:
    op.drop_table("guest_memories")
    op.drop_index("ix_jobs_writer_failed_created_at_id", table_name="jobs")
    op.drop_index("ix_jobs_vss_outcome_created_at_id", table_name="jobs")
    with op.batch_alter_table("jobs") as jobs:
        for column in ("auto_recovery", "writer_failed", "vss_outcome", "vss"):
            jobs.drop_column(column)
