"""The blackout of a policy that is now or begins soon, where workers find it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | Sequence[str] | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for name in ("blocked_from", "blocked_until"):
        op.add_column("policies", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in ("blocked_until", "blocked_from"):
        op.drop_column("policies", name)
