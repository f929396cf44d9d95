"""The domains of the points that jobs name, by which the list of jobs finds them."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | Sequence[str] | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    table = op.create_table(
        "job_domains",
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("domain_name", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_domains_job_id_jobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("domain_id", "created_at", "job_id", name="pk_job_domains"),
    )
    op.create_index("ix_job_domains_domain_name_created_at_job_id", "job_domains", ["domain_name", "created_at", "job_id"])
    op.create_index("ix_job_domains_job_id", "job_domains", ["job_id"])
    rows = list(_rows(op.get_bind()))
    if rows:
        op.bulk_insert(table, rows)


def downgrade() -> None:
    op.drop_table("job_domains")


def _rows(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    """Of jobs whose points are still on the list; and of verifies, whose request has named the domain all along."""
    points = sa.table("recovery_points", sa.column("id"), sa.column("domain_id"), sa.column("domain_name"))
    jobs = sa.table(
        "jobs", sa.column("id"), sa.column("domain_id"), sa.column("created_at", sa.DateTime(timezone=True)), sa.column("request", sa.JSON)
    )
    found = connection.execute(sa.select(jobs.c.id, jobs.c.created_at, jobs.c.request).where(jobs.c.domain_id.is_(None))).all()
    for job_id, created_at, asked in found:
        request = asked or {}
        named = request.get("recovery_points") or [request.get("recovery_point")]
        of_points = (
            sa.select(points.c.domain_id, sa.func.max(points.c.domain_name)).where(points.c.id.in_(named)).group_by(points.c.domain_id)
        )
        domains = {row[0]: row[1] for row in connection.execute(of_points)}
        if request.get("domain_id") is not None:
            domains[request["domain_id"]] = request.get("domain")
        with_name = {name: domain_id for domain_id, name in domains.items()}
        for domain_id, name in domains.items():
            is_first = with_name[name] == domain_id
            yield {"domain_id": domain_id, "created_at": created_at, "job_id": job_id, "domain_name": name if is_first else None}
