"""The first schema."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("libvirt_uri", sa.Text(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("libvirt_connected", sa.Boolean(), nullable=False),
        sa.Column("libvirt_error", sa.Text(), nullable=True),
        sa.Column("inventory_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=32), nullable=True),
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("domain_name", sa.String(length=255), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("storage_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(length=36), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("intent", sa.JSON(), nullable=True),
        sa.Column("phases", sa.JSON(), nullable=False),
        sa.Column("freeze", sa.JSON(), nullable=True),
        sa.Column("timing", sa.JSON(), nullable=True),
        sa.Column("verdict", sa.String(length=32), nullable=True),
        sa.Column("verdict_reasons", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("recovery_point", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("retry_of", sa.String(length=36), nullable=True),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("idempotency_digest", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"], unique=False)
    op.create_index("ix_jobs_domain_id_created_at_id", "jobs", ["domain_id", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_domain_name_created_at_id", "jobs", ["domain_name", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_host_id_created_at_id", "jobs", ["host_id", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_kind_created_at_id", "jobs", ["kind", "created_at", "id"], unique=False)
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["host_id", "state", "run_after"],
        unique=False,
        sqlite_where=sa.text("state IN ('queued', 'running', 'interrupted')"),
        postgresql_where=sa.text("state IN ('queued', 'running', 'interrupted')"),
    )
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_verdict_created_at_id", "jobs", ["verdict", "created_at", "id"], unique=False)
    op.create_index(
        "uq_jobs_idempotency",
        "jobs",
        ["token_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_jobs_one_running_per_domain",
        "jobs",
        ["domain_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('running', 'interrupted') AND kind <> 'thaw'"),
        postgresql_where=sa.text("state IN ('running', 'interrupted') AND kind <> 'thaw'"),
    )

    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_table(
        "domains",
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_domains_host_id_hosts"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", "id", name=op.f("pk_domains")),
    )
    op.create_index(op.f("ix_domains_id"), "domains", ["id"], unique=False)
    op.create_index(op.f("ix_domains_name"), "domains", ["name"], unique=False)

    op.create_table(
        "job_labels",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_labels_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "value", "created_at", "job_id", name=op.f("pk_job_labels")),
    )
    op.create_table(
        "recovery_points",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("domain_id", sa.String(length=36), nullable=False),
        sa.Column("domain_name", sa.String(length=255), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("point_in_time_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("disks", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_recovery_points_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_points")),
    )
    op.create_index("ix_recovery_points_created_at_id", "recovery_points", ["created_at", "id"], unique=False)
    op.create_index("ix_recovery_points_domain_id_created_at_id", "recovery_points", ["domain_id", "created_at", "id"], unique=False)
    op.create_index("ix_recovery_points_domain_name_created_at_id", "recovery_points", ["domain_name", "created_at", "id"], unique=False)
    op.create_index("ix_recovery_points_host_id_created_at_id", "recovery_points", ["host_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_recovery_points_job_id"), "recovery_points", ["job_id"], unique=False)
    op.create_index("ix_recovery_points_verdict_created_at_id", "recovery_points", ["verdict", "created_at", "id"], unique=False)

    op.create_table(
        "slots",
        sa.Column("resource", sa.String(length=300), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_slots_job_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("resource", "n", name=op.f("pk_slots")),
    )
    op.create_index(op.f("ix_slots_job_id"), "slots", ["job_id"], unique=False)


def downgrade() -> None:
    for table in ("slots", "recovery_points", "job_labels", "domains", "tokens", "jobs", "hosts"):
        op.drop_table(table)
