"""Policies, their schedules and runs, labels of domains, and the free space of repositories over time."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "policies",
        _identifier("id"),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("document", JSON, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("name", name=op.f("uq_policies_name")),
    )
    op.create_table(
        "domain_labels",
        _identifier("domain_id"),
        sa.Column("labels", JSON, nullable=False),
        _instant("updated_at"),
        sa.PrimaryKeyConstraint("domain_id", name=op.f("pk_domain_labels")),
    )
    _create_schedules()
    _create_runs()
    op.create_table(
        "repository_samples",
        _identifier("repository_id"),
        _instant("at"),
        sa.Column("free_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_samples_repository_id_repositories"),
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "at", name=op.f("pk_repository_samples")),
    )


def downgrade() -> None:
    for table in ("repository_samples", "schedule_runs", "schedules", "domain_labels", "policies"):
        op.drop_table(table)


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        _identifier("id"),
        _identifier("policy_id"),
        sa.Column("track", sa.String(length=64), nullable=False),
        _identifier("domain_id"),
        sa.Column("domain_name", sa.String(length=255), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        _instant("created_at"),
        _instant("next_due_at", nullable=True),
        _instant("fire_at", nullable=True),
        sa.Column("last_job_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("policy_id", "track", "domain_id", name=op.f("uq_schedules_policy_id_track_domain_id")),
        sa.ForeignKeyConstraint(["policy_id"], ["policies.id"], name=op.f("fk_schedules_policy_id_policies"), ondelete="CASCADE"),
    )
    op.create_index("ix_schedules_fire_at_id", "schedules", ["fire_at", "id"])
    op.create_index("ix_schedules_domain_id", "schedules", ["domain_id"])


def _create_runs() -> None:
    op.create_table(
        "schedule_runs",
        _identifier("schedule_id"),
        _instant("due_at"),
        _identifier("policy_id"),
        sa.Column("policy_name", sa.String(length=64), nullable=False),
        sa.Column("track", sa.String(length=64), nullable=False),
        _identifier("domain_id"),
        sa.Column("domain_name", sa.String(length=255), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        _instant("decided_at"),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name=op.f("pk_schedule_runs")),
    )
    op.create_index("ix_schedule_runs_domain_id_due_at", "schedule_runs", ["domain_id", "due_at"])
    op.create_index("ix_schedule_runs_policy_id_due_at", "schedule_runs", ["policy_id", "due_at"])
    op.create_index("ix_schedule_runs_decided_at", "schedule_runs", ["decided_at"])


def _identifier(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=36), nullable=False)


def _instant(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
