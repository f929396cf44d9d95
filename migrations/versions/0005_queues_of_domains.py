"""Queues of single domains that can be stepped over, counts from an index, and how often a host publishes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

QUEUED = sa.text("state = 'queued' AND kind <> 'thaw'")
QUEUED_THAWS = sa.text("state = 'queued' AND kind = 'thaw'")


def upgrade() -> None:
    columns = ["host_id", "domain_id", "run_after", "id"]
    op.create_index("ix_jobs_queued_by_domain", "jobs", columns, sqlite_where=QUEUED, postgresql_where=QUEUED)
    columns = ["host_id", "run_after", "id"]
    op.create_index("ix_jobs_queued_thaws", "jobs", columns, sqlite_where=QUEUED_THAWS, postgresql_where=QUEUED_THAWS)
    op.create_index("ix_jobs_state_kind", "jobs", ["state", "kind"])
    op.add_column("hosts", sa.Column("inventory_seconds", sa.Float(), nullable=False, server_default="30"))


def downgrade() -> None:
    op.drop_column("hosts", "inventory_seconds")
    for name in ("ix_jobs_state_kind", "ix_jobs_queued_thaws", "ix_jobs_queued_by_domain"):
        op.drop_index(name, "jobs")
