"""The tables of copies: where a repository is copied to, what is there, and what attacks on each store came to. Import them from
`service.db.tables`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base


class Copy(Base):
    __tablename__ = "copies"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repositories.id", onupdate="CASCADE", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    #: `service.model.copy_target`.
    target: Mapped[dict[str, Any]]
    #: The target in words: two copies of a repository are never at one place.
    place: Mapped[str] = mapped_column(Text)
    #: "file:/path" or "command:program arguments": where the credentials are, and never the credentials.
    key_reference: Mapped[str | None] = mapped_column(Text)
    #: Days for which a point is locked from the moment that it is sent. None: no lock is asked for.
    retain_days: Mapped[int | None] = mapped_column(Integer)
    lock_mode: Mapped[str] = mapped_column(String(16))
    rate_limit_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    #: When a job first saw or made the copy there. None: an empty place may still become the copy.
    opened_at: Mapped[datetime | None]
    #: `service.model.immutability`, by the last proof.
    immutability: Mapped[str] = mapped_column(String(16))
    proven_at: Mapped[datetime | None]
    #: The answers of the last proof.
    answers: Mapped[list[Any] | None]
    #: When its sentinel is attacked next. None: never, as no lock is asked for.
    proof_due_at: Mapped[datetime | None]
    #: The rules that keep points which the repository has removed (`service.model.retention_rules`). None: all of them stay.
    retention: Mapped[dict[str, Any] | None]

    __table_args__ = (
        UniqueConstraint("repository_id", "name"),
        UniqueConstraint("repository_id", "place"),
        Index("ix_copies_proof_due_at", "proof_due_at"),
    )


class CopiedPoint(Base):
    """A point on a copy. It stays on record when the repository loses the point: that is when it is needed."""

    __tablename__ = "copied_points"

    copy_id: Mapped[str] = mapped_column(ForeignKey("copies.id", ondelete="CASCADE"), primary_key=True)
    point_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    #: `service.model.copied.CopiedState`.
    state: Mapped[str] = mapped_column(String(16))
    folder: Mapped[str] = mapped_column(Text)
    domain_id: Mapped[str] = mapped_column(String(36))
    domain_name: Mapped[str] = mapped_column(String(255))
    point_in_time_at: Mapped[datetime]
    verdict: Mapped[str] = mapped_column(String(32))
    #: As in `recovery_points`.
    parents: Mapped[list[Any]]
    manifest_digest: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: The job that sends it, or that sent it.
    job_id: Mapped[str] = mapped_column(String(36))
    begun_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    #: When what is there was last held against the manifest, and how: `checksum` or `content`.
    checked_at: Mapped[datetime | None]
    checked_by: Mapped[str | None] = mapped_column(String(16))
    #: The end of the lock that the store shows. None: it shows none.
    locked_until: Mapped[datetime | None]
    #: When the repository removed the point on purpose. None: it has the point, or lost it.
    removed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_copied_points_copy_id_point_in_time_at", "copy_id", "point_in_time_at", "point_id"),
        Index("ix_copied_points_point_id", "point_id"),
    )


class CopyProof(Base):
    """One attack on the sentinel of a copy, and what came of it."""

    __tablename__ = "copy_proofs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    copy_id: Mapped[str] = mapped_column(ForeignKey("copies.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    job_id: Mapped[str] = mapped_column(String(36))
    immutability: Mapped[str] = mapped_column(String(16))
    lock_mode: Mapped[str] = mapped_column(String(16))
    #: [{"attack", "accepted", "code", "holds", "what"}]
    answers: Mapped[list[Any]]
    why_not: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("ix_copy_proofs_copy_id_at", "copy_id", "at"),)
