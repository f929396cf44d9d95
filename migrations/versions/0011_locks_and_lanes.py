"""What a job locks is a value of its own, a job may be about no domain, and permits are those of a lane."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

AT_WORK = "state IN ('running', 'interrupted')"
UNFINISHED = "state IN ('queued', 'running', 'interrupted')"
QUEUED_WITH_LOCK = "state = 'queued' AND lock_key IS NOT NULL"
QUEUED_WITHOUT_LOCK = "state = 'queued' AND lock_key IS NULL"
#: As they were before.
AT_WORK_ON_A_DOMAIN = "state IN ('running', 'interrupted') AND kind <> 'thaw'"
QUEUED = "state = 'queued' AND kind <> 'thaw'"
QUEUED_THAWS = "state = 'queued' AND kind = 'thaw'"

slots = sa.table("slots", sa.column("resource", sa.String))
QUICK = ":quick"


def upgrade() -> None:
    _drop("uq_jobs_one_running_per_domain", "ix_jobs_queued_by_domain", "ix_jobs_queued_thaws")
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("lock_key", sa.String(length=300), nullable=True))
        jobs.add_column(sa.Column("repository_id", sa.String(length=255), nullable=True))
        jobs.alter_column("domain_id", existing_type=sa.String(length=36), nullable=True)
        jobs.alter_column("domain_name", existing_type=sa.String(length=255), nullable=True)
    # A job that has ended locks nothing ever again.
    op.execute(f"UPDATE jobs SET lock_key = 'domain:' || domain_id WHERE {UNFINISHED} AND kind <> 'thaw'")  # noqa: S608 - a constant
    _index("uq_jobs_one_running_per_lock", ["lock_key"], AT_WORK, unique=True)
    _index("ix_jobs_queued_by_lock", ["host_id", "lock_key", "run_after", "id"], QUEUED_WITH_LOCK)
    _index("ix_jobs_queued_without_lock", ["host_id", "run_after", "id"], QUEUED_WITHOUT_LOCK)
    # What a running job holds it goes on to hold.
    op.execute(sa.update(slots).where(slots.c.resource.startswith("host:")).values(resource=slots.c.resource + QUICK))


def downgrade() -> None:
    op.execute(sa.delete(slots).where(~slots.c.resource.endswith(QUICK)))
    op.execute(sa.update(slots).values(resource=sa.func.replace(slots.c.resource, QUICK, "")))
    _drop("ix_jobs_queued_without_lock", "ix_jobs_queued_by_lock", "uq_jobs_one_running_per_lock")
    # Earlier versions cannot tell of a job without a domain.
    op.execute("DELETE FROM jobs WHERE domain_id IS NULL OR domain_name IS NULL")
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("domain_name", existing_type=sa.String(length=255), nullable=False)
        jobs.alter_column("domain_id", existing_type=sa.String(length=36), nullable=False)
        jobs.drop_column("repository_id")
        jobs.drop_column("lock_key")
    _index("uq_jobs_one_running_per_domain", ["domain_id"], AT_WORK_ON_A_DOMAIN, unique=True)
    _index("ix_jobs_queued_by_domain", ["host_id", "domain_id", "run_after", "id"], QUEUED)
    _index("ix_jobs_queued_thaws", ["host_id", "run_after", "id"], QUEUED_THAWS)


def _drop(*names: str) -> None:
    for name in names:
        op.drop_index(name, "jobs")


def _index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(name, "jobs", columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
