"""Which form the request of a job has; the count of follow-ups leaves the request of the caller."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNT = "shortfall_try"
jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("request", sa.JSON), sa.column(COUNT, sa.Integer))


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request_version", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column(COUNT, sa.Integer(), nullable=False, server_default="0"))
    for job_id, request in _with_count(jobs.c.request[COUNT].as_string().is_not(None)):
        asked = {name: value for name, value in request.items() if name != COUNT}
        op.execute(jobs.update().where(jobs.c.id == job_id).values({"request": asked, COUNT: request[COUNT]}))


def downgrade() -> None:
    for job_id, request, count in op.get_bind().execute(sa.select(jobs.c.id, jobs.c.request, jobs.c[COUNT]).where(jobs.c[COUNT] > 0)).all():
        op.execute(jobs.update().where(jobs.c.id == job_id).values(request={**request, COUNT: count}))
    op.drop_column("jobs", COUNT)
    op.drop_column("jobs", "request_version")


def _with_count(is_so: sa.ColumnElement[bool]) -> list[tuple[str, dict[str, object]]]:
    """Few: jobs that the service asked for by itself, after a point fell short."""
    return [(job_id, request) for job_id, request in op.get_bind().execute(sa.select(jobs.c.id, jobs.c.request).where(is_so))]
