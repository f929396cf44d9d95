"""Which process is the worker of a host; jobs of hosts that were forgotten."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FORGOTTEN = sa.text("forgotten_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_forgotten", "jobs", ["host_id"], sqlite_where=FORGOTTEN, postgresql_where=FORGOTTEN)
    op.add_column("hosts", sa.Column("lease_seconds", sa.Float(), nullable=False, server_default="60"))
    op.add_column("hosts", sa.Column("instance_id", sa.String(length=36), nullable=True))
    op.add_column("hosts", sa.Column("lock_id", sa.String(length=255), nullable=True))
    op.add_column("hosts", sa.Column("held_by", sa.String(length=255), nullable=True))


def downgrade() -> None:
    for name in ("held_by", "lock_id", "instance_id", "lease_seconds"):
        op.drop_column("hosts", name)
    op.drop_index("ix_jobs_forgotten", "jobs")
    op.drop_column("jobs", "forgotten_at")
