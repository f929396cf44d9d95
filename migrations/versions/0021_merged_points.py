"""The digest of the manifest that a merge is putting in the place of another."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | Sequence[str] | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("recovery_points", sa.Column("next_manifest_digest", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("recovery_points", "next_manifest_digest")
