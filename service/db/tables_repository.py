"""The tables of repositories and of recovery points. All code imports them from `service.db.tables`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base


class Repository(Base):
    """A repository as it was registered, and as the worker of its host last saw it (`service.records.repositories`)."""

    __tablename__ = "repositories"

    #: What the repository's own file says, as soon as a worker has read it.
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    #: The id that the registration gave. It differs from `id` where the folder was a repository already, and is still understood.
    registered_id: Mapped[str] = mapped_column(String(36), unique=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    path: Mapped[str] = mapped_column(Text)
    #: The host whose worker looks at it. Jobs work on the host of their domain, under the same path.
    host_id: Mapped[str] = mapped_column(String(64))
    #: "file:/path" or "command:program arguments": where the key is, and never the key. None: not encrypted.
    key_reference: Mapped[str | None] = mapped_column(Text)
    #: Transfers at the same time, over all hosts. None: no limit.
    max_transfers: Mapped[int | None] = mapped_column(Integer)
    #: Free space that a backup must leave.
    reserve_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16))
    #: The error of the last look; None: there was none.
    state_error: Mapped[dict[str, Any] | None]
    looked_at: Mapped[datetime | None]
    free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    format_version: Mapped[int | None] = mapped_column(Integer)
    #: When a caller asked for it, until the worker has done it.
    check_asked_at: Mapped[datetime | None]
    import_asked_at: Mapped[datetime | None]
    imported_at: Mapped[datetime | None]
    #: What the last import found, as the worker says it.
    import_result: Mapped[dict[str, Any] | None]
    #: The budget of verification by plan (`service.model.verification_budget`). None: nothing is verified by plan.
    verification: Mapped[dict[str, Any] | None]

    __table_args__ = (UniqueConstraint("host_id", "path"),)


class VerificationRun(Base):
    """One verify by plan. The number makes it happen once, whatever number of processes plan."""

    __tablename__ = "verification_runs"

    repository_id: Mapped[str] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True)
    #: 1 for the first of the repository.
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    point_id: Mapped[str] = mapped_column(String(36))
    domain_id: Mapped[str] = mapped_column(String(36))
    #: None: the point could not be read, and no job was made.
    job_id: Mapped[str | None] = mapped_column(String(36))
    #: `service.model.verification_plan.Why`
    why: Mapped[str] = mapped_column(String(16))
    begun_at: Mapped[datetime]
    #: What it was expected to read.
    cost_bytes: Mapped[int] = mapped_column(BigInteger)
    #: What it has read. None: it has not ended, or that is not known.
    read_bytes: Mapped[int | None] = mapped_column(BigInteger)
    took_ms: Mapped[int | None] = mapped_column(BigInteger)
    #: `service.records.verification.Outcome`. None: it has not ended.
    outcome: Mapped[str | None] = mapped_column(String(16))


class RecoveryPoint(Base):
    __tablename__ = "recovery_points"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    #: None: the job is not on record here. The point was imported from a repository.
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    domain_id: Mapped[str] = mapped_column(String(36))
    domain_name: Mapped[str] = mapped_column(String(255))
    host_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    point_in_time_at: Mapped[datetime]
    verdict: Mapped[str] = mapped_column(String(32))
    labels: Mapped[dict[str, Any]]
    #: [{"target", "file", "format", "virtual_size", "overlay"}]; of a sealed point the disks of its manifest.
    disks: Mapped[list[Any]]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), server_default="taken")

    #: The point as the API tells it (`service.model.documents`).
    document: Mapped[str | None] = mapped_column(Text)

    #: Where a sealed point lies. None: the point is no more than the files beside the guest's disks.
    repository_id: Mapped[str | None] = mapped_column(ForeignKey("repositories.id", onupdate="CASCADE"))
    #: Relative to the folder of the repository.
    folder: Mapped[str | None] = mapped_column(Text)
    #: SHA-256 in hex of the canonical manifest.
    manifest_digest: Mapped[str | None] = mapped_column(String(64))
    #: The ids of the points from which this one inherits, without those further down.
    parents: Mapped[list[Any] | None]
    #: Retention never removes it.
    pinned: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    is_encrypted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    #: [{"target", "reason"}]
    left_out: Mapped[list[Any] | None]
    #: [{"kind", "at", "ok", "facts", "job_id"}], oldest first.
    proofs: Mapped[list[Any] | None]
    #: The guest had the writer of Active Directory. None: not known.
    is_domain_controller: Mapped[bool | None] = mapped_column(Boolean)
    #: Until then a copy that was proven to keep its locks has it. None: no such copy has it.
    retained_until: Mapped[datetime | None]
    #: The digest of the manifest that a merge is putting in the place of the other. Either of them is right, if it is in the repository.
    next_manifest_digest: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        Index("ix_recovery_points_created_at_id", "created_at", "id"),
        Index("ix_recovery_points_domain_id_created_at_id", "domain_id", "created_at", "id"),
        Index("ix_recovery_points_domain_name_created_at_id", "domain_name", "created_at", "id"),
        Index("ix_recovery_points_host_id_created_at_id", "host_id", "created_at", "id"),
        Index("ix_recovery_points_verdict_created_at_id", "verdict", "created_at", "id"),
        Index("ix_recovery_points_repository_id_created_at_id", "repository_id", "created_at", "id"),
        Index("ix_recovery_points_state_created_at_id", "state", "created_at", "id"),
        # The newest point of each domain, and of each state and verdict, from the index alone.
        Index("ix_recovery_points_newest", "domain_id", "point_in_time_at", "state", "verdict", "id", "repository_id"),
    )


class RetentionLook(Base):
    """When retention last looked at a repository, and when it looks again."""

    __tablename__ = "retention_looks"

    repository_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("repositories.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    looked_at: Mapped[datetime]
    #: A new point, or a clock that was far ahead, makes it earlier.
    due_at: Mapped[datetime]
