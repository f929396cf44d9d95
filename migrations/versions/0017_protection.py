"""What the list of protection reads: the last job of each domain and kind, points that are proven, and when a domain appeared."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | Sequence[str] | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KINDS = ("snapshot", "backup", "verify")
ENDS = ("succeeded", "failed", "cancelled")
BATCH = 500
"""Points whose proofs are in memory at once."""
INSTANT = sa.DateTime(timezone=True)
JOBS = sa.table(
    "jobs",
    *(sa.column(name) for name in ("id", "kind", "state", "domain_id")),
    sa.column("created_at", INSTANT),
    sa.column("finished_at", INSTANT),
    sa.column("error", sa.JSON()),
)
POINTS = sa.table(
    "recovery_points", sa.column("id"), sa.column("domain_id"), sa.column("point_in_time_at", INSTANT), sa.column("proofs", sa.JSON())
)


def upgrade() -> None:
    op.add_column("domains", sa.Column("appeared_at", INSTANT, nullable=True))
    columns = ["domain_id", "point_in_time_at", "state", "verdict", "id", "repository_id"]
    op.create_index("ix_recovery_points_newest", "recovery_points", columns)
    last_jobs, proven_points = _create_last_jobs(), _create_proven_points()
    _fill_last_jobs(last_jobs)
    _fill_proven_points(proven_points)


def downgrade() -> None:
    op.drop_table("proven_points")
    op.drop_table("last_jobs")
    op.drop_index("ix_recovery_points_newest", table_name="recovery_points")
    op.drop_column("domains", "appeared_at")


def _create_last_jobs() -> sa.Table:
    return op.create_table(
        "last_jobs",
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ended_at", INSTANT, nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("in_a_row", sa.Integer(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("took_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("domain_id", "kind", name=op.f("pk_last_jobs")),
    )


def _create_proven_points() -> sa.Table:
    table = op.create_table(
        "proven_points",
        sa.Column("point_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("point_in_time_at", INSTANT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["point_id"], ["recovery_points.id"], name=op.f("fk_proven_points_point_id_recovery_points"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("point_id", "kind", name=op.f("pk_proven_points")),
    )
    columns = ["domain_id", "kind", "point_in_time_at", "at"]
    op.create_index("ix_proven_points_domain_id_kind_point_in_time_at", "proven_points", columns)
    return table


def _fill_last_jobs(last_jobs: sa.Table) -> None:
    """How many ended alike before the newest is not looked for: its own row tells of one."""
    newest_first = sa.func.row_number().over(
        partition_by=(JOBS.c.domain_id, JOBS.c.kind), order_by=(JOBS.c.finished_at.desc(), JOBS.c.id.desc())
    )
    ended = sa.select(JOBS.c.id, newest_first.label("place")).where(
        JOBS.c.state.in_(ENDS), JOBS.c.kind.in_(KINDS), JOBS.c.domain_id.is_not(None), JOBS.c.finished_at.is_not(None)
    )
    numbered = ended.subquery()
    newest = sa.select(JOBS).join(numbered, numbered.c.id == JOBS.c.id).where(numbered.c.place == 1)
    connection = op.get_bind()
    rows = [
        {
            "domain_id": job.domain_id,
            "kind": job.kind,
            "job_id": job.id,
            "state": job.state,
            "ended_at": job.finished_at,
            "error_code": (job.error or {}).get("code"),
            "in_a_row": 1,
            "since": job.finished_at,
            "took_s": (job.finished_at - job.created_at).total_seconds() if job.state == "succeeded" else None,
        }
        for job in connection.execute(newest)
    ]
    if rows:
        connection.execute(sa.insert(last_jobs), rows)


def _fill_proven_points(proven_points: sa.Table) -> None:
    connection, last = op.get_bind(), ""
    while points := connection.execute(sa.select(POINTS).where(POINTS.c.id > last).order_by(POINTS.c.id).limit(BATCH)).all():
        rows = [row for point in points for row in _proven(point)]
        if rows:
            connection.execute(sa.insert(proven_points), rows)
        last = points[-1].id


def _proven(point: Any) -> list[dict[str, Any]]:
    newest = {proof["kind"]: proof for proof in point.proofs or ()}
    of_point = {"point_id": point.id, "domain_id": point.domain_id, "point_in_time_at": point.point_in_time_at}
    return [{**of_point, "kind": kind, "at": _instant(proof["at"])} for kind, proof in newest.items() if proof["ok"] is True]


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
