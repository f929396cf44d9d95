"""A schedule keeps the rule that it follows and since when its domain is gone; the database keeps when schedules were last looked after."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | Sequence[str] | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # No version wrote a schedule before this one, so there are no rows to keep.
    op.execute("DELETE FROM schedules")
    with op.batch_alter_table("schedules") as schedules:
        schedules.add_column(sa.Column("rule", sa.Text(), nullable=False))
        schedules.add_column(sa.Column("gone_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("database_identity", sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("database_identity", "scheduled_at")
    with op.batch_alter_table("schedules") as schedules:
        schedules.drop_column("gone_since")
        schedules.drop_column("rule")
