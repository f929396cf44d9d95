"""Every move of a job or of a recovery point leaves an event."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("job_kind", sa.String(length=32), nullable=True),
        sa.Column("point_id", sa.String(length=36), nullable=True),
        sa.Column("domain_id", sa.String(length=36), nullable=True),
        sa.Column("domain_name", sa.String(length=255), nullable=True),
        sa.Column("host_id", sa.String(length=64), nullable=True),
        sa.Column("moved_from", sa.String(length=16), nullable=True),
        sa.Column("moved_to", sa.String(length=16), nullable=False),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.add_column("recovery_points", sa.Column("state", sa.String(length=16), nullable=False, server_default="taken"))


def downgrade() -> None:
    op.drop_column("recovery_points", "state")
    op.drop_table("events")
