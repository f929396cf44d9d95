"""Limits for each storage were promised and never built."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_column("jobs", "storage_id")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("storage_id", sa.String(length=255), nullable=True))
