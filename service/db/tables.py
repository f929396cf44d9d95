"""The tables. `jobs` is the record of every operation and at the same time the queue (docs/decisions)."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base, UtcDateTime
from service.db.tables_copies import CopiedPoint, Copy, CopyProof
from service.db.tables_policy import DomainLabels, Policy, RepositorySample, Schedule, ScheduleRun
from service.db.tables_protection import LastJob, ProvenPoint
from service.db.tables_repository import RecoveryPoint, Repository, RetentionLook, VerificationRun

__all__ = [
    "CopiedPoint",
    "Copy",
    "CopyProof",
    "DatabaseIdentity",
    "Domain",
    "DomainLabels",
    "Event",
    "Gate",
    "GuestMemory",
    "Host",
    "Job",
    "JobDocument",
    "JobDomain",
    "JobLabel",
    "LastJob",
    "Policy",
    "ProvenPoint",
    "PrunedJobs",
    "RawText",
    "RecoveryPoint",
    "Repository",
    "RepositorySample",
    "RetentionLook",
    "Schedule",
    "ScheduleRun",
    "Slot",
    "Token",
    "VerificationRun",
]


def _only(condition: str) -> dict[str, Any]:
    """For an index of the rows that fulfil the condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Job(Base):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str | None] = mapped_column(String(32))
    #: None: the job is not about a domain.
    domain_id: Mapped[str | None] = mapped_column(String(36))
    domain_name: Mapped[str | None] = mapped_column(String(255))
    host_id: Mapped[str] = mapped_column(String(64))

    created_at: Mapped[datetime]
    run_after: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]

    attempt: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer, default=3)
    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_until: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)

    #: The validated request, as it was asked for.
    request: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    #: What was about to be done, committed before freeze is sent; recovery compares the disks with it.
    intent: Mapped[dict[str, Any] | None]
    phases: Mapped[list[Any]]
    freeze: Mapped[dict[str, Any] | None]
    timing: Mapped[dict[str, Any] | None]
    verdict: Mapped[str | None] = mapped_column(String(32))
    verdict_reasons: Mapped[list[Any]]
    #: The facts behind the verdict: agent replies, versions, counts, what was read from the disks. Raw texts are in `evidence`.
    evidence: Mapped[dict[str, Any] | None]
    #: What jobs of other kinds leave: the checks of a preflight, the answer of a thaw.
    result: Mapped[dict[str, Any] | None]
    recovery_point: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    retry_of: Mapped[str | None] = mapped_column(String(36))
    token_id: Mapped[str | None] = mapped_column(String(36))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    idempotency_digest: Mapped[str | None] = mapped_column(String(64))

    #: What VSS did in a Windows guest: the ten steps, the outcome, the backup type, the writers.
    vss: Mapped[dict[str, Any] | None]
    vss_outcome: Mapped[str | None] = mapped_column(String(32))
    #: A writer was in a failed state after the thaw; None: that is not known, or there are none.
    writer_failed: Mapped[bool | None] = mapped_column(Boolean)
    auto_recovery: Mapped[dict[str, Any] | None]

    #: When its host was forgotten while it ran; None again when the host came back and its worker has looked.
    forgotten_at: Mapped[datetime | None]

    #: The form that `request` has (`service.model.requests`).
    request_version: Mapped[int] = mapped_column(Integer, server_default="0")
    #: Which follow-up it is of a job that fell short; 0: a caller asked for it.
    shortfall_try: Mapped[int] = mapped_column(Integer, server_default="0")

    #: What the job has for itself alone while it runs (`service.records.locks`); None: nothing.
    lock_key: Mapped[str | None] = mapped_column(String(300))
    #: Where it reads or writes points; None: nowhere.
    repository_id: Mapped[str | None] = mapped_column(String(255))
    #: How far a step that copies or reads for long has come; None: no such step runs.
    progress: Mapped[dict[str, Any] | None]

    __table_args__ = (
        # The referee: whatever the code does, the database refuses a second running job with the same lock. An interrupted
        # job keeps its lock until recovery has looked. The emergency thaw has none, and passes.
        Index("uq_jobs_one_running_per_lock", "lock_key", unique=True, **_only("state IN ('running', 'interrupted')")),
        Index("uq_jobs_idempotency", "token_id", "idempotency_key", unique=True, **_only("idempotency_key IS NOT NULL")),
        Index("ix_jobs_queue", "host_id", "state", "run_after", **_only("state IN ('queued', 'running', 'interrupted')")),
        # The queue of each lock, so that a backlog of one is stepped over in one go; and what needs no lock, as thaws.
        Index("ix_jobs_queued_by_lock", "host_id", "lock_key", "run_after", "id", **_only("state = 'queued' AND lock_key IS NOT NULL")),
        Index("ix_jobs_queued_without_lock", "host_id", "run_after", "id", **_only("state = 'queued' AND lock_key IS NULL")),
        # What /metrics counts, from the index alone.
        Index("ix_jobs_state_kind", "state", "kind"),
        Index("ix_jobs_forgotten", "host_id", **_only("forgotten_at IS NOT NULL")),
        # A page of any list is a range of one of these, so it costs the same at any size.
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_state_created_at_id", "state", "created_at", "id"),
        Index("ix_jobs_kind_created_at_id", "kind", "created_at", "id"),
        Index("ix_jobs_domain_id_created_at_id", "domain_id", "created_at", "id"),
        Index("ix_jobs_domain_name_created_at_id", "domain_name", "created_at", "id"),
        Index("ix_jobs_host_id_created_at_id", "host_id", "created_at", "id"),
        Index("ix_jobs_verdict_created_at_id", "verdict", "created_at", "id"),
        Index("ix_jobs_vss_outcome_created_at_id", "vss_outcome", "created_at", "id"),
        Index("ix_jobs_writer_failed_created_at_id", "writer_failed", "created_at", "id"),
    )


class JobDocument(Base):
    """A job as the API tells it, as text: written whenever the job is (`service.db.documents`). Beside the job, which has many indexes."""

    __tablename__ = "job_documents"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    #: The job as it stands in a list, and what a list leaves out (`service.model.documents`): JSON objects.
    entry: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)


class JobLabel(Base):
    """Labels once more, one row each, so that filtering by a label is a range of an index."""

    __tablename__ = "job_labels"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)

    __table_args__ = (
        # A job that is deleted takes its labels along: without this each deletion would read the whole table.
        Index("ix_job_labels_job_id", "job_id"),
    )


class JobDomain(Base):
    """The domains of the points that a job names, where the job itself is about no domain: a list by domain finds it by these rows."""

    __tablename__ = "job_domains"

    domain_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    #: None: another domain of the job has the same name, and its row has it. A list by name has each job once.
    domain_name: Mapped[str | None] = mapped_column(String(255))

    __table_args__ = (
        Index("ix_job_domains_domain_name_created_at_job_id", "domain_name", "created_at", "job_id"),
        Index("ix_job_domains_job_id", "job_id"),
    )


class RawText(Base):
    """What the programs of a guest printed, as a part of the job's evidence: most of its bytes, and read one job at a time."""

    __tablename__ = "evidence"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    #: The key under which it stands in the job's `evidence`.
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    #: When the texts were removed because of their age; `document` then says so.
    aged_out_at: Mapped[datetime | None]
    document: Mapped[dict[str, Any]]

    __table_args__ = (
        # The oldest texts that are still there.
        Index("ix_evidence_created_at_job_id", "created_at", "job_id", **_only("aged_out_at IS NULL")),
    )


class Slot(Base):
    """A permit: `resource` has as many rows as jobs may use it at once; `job_id` is who has it now."""

    __tablename__ = "slots"

    resource: Mapped[str] = mapped_column(String(300), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)


class Gate(Base):
    """The gate of a quiesce job: where the API and the worker that holds the guest tell each other what they know."""

    __tablename__ = "gates"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    #: SHA-256 of the token that releases it.
    token_digest: Mapped[str] = mapped_column(String(64))
    #: How long the guest may be held, from the freeze reply.
    hold_budget_ms: Mapped[int] = mapped_column(Integer)
    filesystems_frozen: Mapped[int | None] = mapped_column(Integer)
    opened_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    release_requested_at: Mapped[datetime | None]


class Host(Base):
    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[datetime]
    last_seen: Mapped[datetime]
    version: Mapped[str] = mapped_column(String(64))
    libvirt_uri: Mapped[str] = mapped_column(Text)
    #: {"libvirt": "9.0.0", "hypervisor": "QEMU 7.2.22"}, empty while libvirt is away.
    versions: Mapped[dict[str, Any]]
    libvirt_connected: Mapped[bool] = mapped_column(Boolean)
    libvirt_error: Mapped[str | None] = mapped_column(Text)
    inventory_at: Mapped[datetime | None]
    #: How often its worker publishes: what has not come for three times as long is stale.
    inventory_seconds: Mapped[float] = mapped_column(Float, server_default="30")
    lease_seconds: Mapped[float] = mapped_column(Float, server_default="60")
    #: The process that is the worker of this host; None: it was stopped.
    instance_id: Mapped[str | None] = mapped_column(String(36))
    #: The lock file that this process holds (`service.worker.host_lock.LockId`).
    lock_id: Mapped[str | None] = mapped_column(String(255))
    #: The same process in words, for an error.
    held_by: Mapped[str | None] = mapped_column(String(255))


class Domain(Base):
    """A domain as its host's worker last published it."""

    __tablename__ = "domains"

    host_id: Mapped[str] = mapped_column(ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(String(36), primary_key=True, index=True)
    name: Mapped[str] = mapped_column(String(255), index=True)
    state: Mapped[str] = mapped_column(String(32))
    published_at: Mapped[datetime]
    #: disks, filesystems, agent, os, frozen: see service.api.schemas.domains.
    document: Mapped[dict[str, Any]]
    #: When the host first published it. None: before there was this column.
    appeared_at: Mapped[datetime | None]


class Event(Base):
    """One move of a job or of a recovery point, written in the transaction of the move. Rows are only added (docs/decisions)."""

    __tablename__ = "events"
    # SQLite would give the id of a deleted row once more.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy declares it

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    #: By the clock of the database.
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    #: The subject of the event. The rows that these columns name may be gone when the event is read.
    job_id: Mapped[str | None] = mapped_column(String(36))
    job_kind: Mapped[str | None] = mapped_column(String(32))
    point_id: Mapped[str | None] = mapped_column(String(36))
    domain_id: Mapped[str | None] = mapped_column(String(36))
    domain_name: Mapped[str | None] = mapped_column(String(255))
    host_id: Mapped[str | None] = mapped_column(String(64))
    #: None: it did not exist before.
    moved_from: Mapped[str | None] = mapped_column(String(16))
    moved_to: Mapped[str] = mapped_column(String(16))
    facts: Mapped[dict[str, Any]]


class GuestMemory(Base):
    """What was last known of a guest, so that a change (an update that resets VssOption) is noticed."""

    __tablename__ = "guest_memories"

    domain_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    updated_at: Mapped[datetime]
    facts: Mapped[dict[str, Any]]


class DatabaseIdentity(Base):
    """One row, made with the tables: a state folder notes the id, so that another database in the place of this one is noticed."""

    __tablename__ = "database_identity"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    #: Written to test whether the service can write to the database.
    tried_at: Mapped[datetime | None]
    #: When a process last began to remove what is too old.
    pruned_at: Mapped[datetime | None]
    #: When a process last saw that each domain has the schedules of its policy.
    scheduled_at: Mapped[datetime | None]


class PrunedJobs(Base):
    """How many finished jobs were removed because of their age: a count of all that ever finished never falls."""

    __tablename__ = "pruned_jobs"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class Token(Base):
    """A bearer token: only the SHA-256 of it is kept (tokens are random, so no slow hash is needed)."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    prefix: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
