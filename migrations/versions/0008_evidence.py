"""Raw texts of the evidence in a table of their own; what pruning needs to know, and to find."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

RAW = "windows"
"""The one key of `jobs.evidence` that had raw texts."""
BATCH = 200
"""Jobs that are in memory at once; each has up to a megabyte of texts."""
STILL_THERE = sa.text("aged_out_at IS NULL")

jobs = sa.table(
    "jobs",
    sa.column("id", sa.String),
    sa.column("attempt", sa.Integer),
    sa.column("updated_at", sa.DateTime(timezone=True)),
    sa.column("evidence", sa.JSON(none_as_null=True)),
)
evidence = sa.table(
    "evidence",
    sa.column("job_id", sa.String),
    sa.column("name", sa.String),
    sa.column("attempt", sa.Integer),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("document", sa.JSON),
)


def upgrade() -> None:
    op.create_table(
        "evidence",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("aged_out_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_evidence_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_evidence")),
    )
    for batch in _batches(_jobs_with_texts):
        _move_out(batch)
    columns = ["created_at", "job_id"]
    op.create_index("ix_evidence_created_at_job_id", "evidence", columns, sqlite_where=STILL_THERE, postgresql_where=STILL_THERE)
    op.create_index("ix_job_labels_job_id", "job_labels", ["job_id"])
    op.create_table(
        "pruned_jobs",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "state", name=op.f("pk_pruned_jobs")),
    )
    op.add_column("database_identity", sa.Column("pruned_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for batch in _batches(_texts):
        _move_back(batch)
    op.drop_column("database_identity", "pruned_at")
    op.drop_table("pruned_jobs")
    op.drop_index("ix_job_labels_job_id", "job_labels")
    op.drop_table("evidence")


def _batches(page: Any) -> Iterator[list[Any]]:
    """By the id, because what was moved may be found by the same condition no more."""
    after = ""
    while rows := page(after):
        yield rows
        after = rows[-1].id


def _jobs_with_texts(after: str) -> list[Any]:
    text = sa.cast(jobs.c.evidence, sa.Text)
    with_texts = sa.select(jobs.c.id, jobs.c.attempt, jobs.c.updated_at, text.label("evidence"))
    found = with_texts.where(jobs.c.id > after, text.contains(f'"{RAW}": {{', autoescape=True)).order_by(jobs.c.id).limit(BATCH)
    return list(op.get_bind().execute(found))


def _move_out(rows: list[Any]) -> None:
    moved, left = [], []
    for row in rows:
        facts = json.loads(row.evidence)
        texts = facts.pop(RAW, None)
        if not isinstance(texts, dict):
            # It stands deeper inside, in something that a guest wrote.
            continue
        moved.append({"job_id": row.id, "name": RAW, "attempt": row.attempt, "created_at": row.updated_at, "document": texts})
        left.append({"of_job": row.id, "facts": facts})
    if moved:
        op.get_bind().execute(sa.insert(evidence), moved)
        op.get_bind().execute(sa.update(jobs).where(jobs.c.id == sa.bindparam("of_job")).values(evidence=sa.bindparam("facts")), left)


def _texts(after: str) -> list[Any]:
    facts = sa.cast(jobs.c.evidence, sa.Text).label("facts")
    joined = sa.select(jobs.c.id, facts, evidence.c.name, sa.cast(evidence.c.document, sa.Text).label("document"))
    joined = joined.join_from(evidence, jobs, jobs.c.id == evidence.c.job_id).where(jobs.c.id > after, evidence.c.name == RAW)
    return list(op.get_bind().execute(joined.order_by(jobs.c.id).limit(BATCH)))


def _move_back(rows: list[Any]) -> None:
    whole = [{"of_job": row.id, "facts": {**json.loads(row.facts or "{}"), row.name: json.loads(row.document)}} for row in rows]
    op.get_bind().execute(sa.update(jobs).where(jobs.c.id == sa.bindparam("of_job")).values(evidence=sa.bindparam("facts")), whole)
