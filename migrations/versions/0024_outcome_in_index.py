"""The outcome of a run in the index by domain, so that the newest runs that made no job are found without reading the others."""

from collections.abc import Sequence

from alembic import op

revision: str = "0024"
down_revision: str | Sequence[str] | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_index("ix_schedule_runs_domain_id_due_at", "schedule_runs")
    op.create_index("ix_schedule_runs_domain_id_due_at_outcome", "schedule_runs", ["domain_id", "due_at", "outcome"])


def downgrade() -> None:
    op.drop_index("ix_schedule_runs_domain_id_due_at_outcome", "schedule_runs")
    op.create_index("ix_schedule_runs_domain_id_due_at", "schedule_runs", ["domain_id", "due_at"])
