"""The tables of policies: what is promised to which domains, and when jobs are due. Import them from `service.db.tables`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base


class Policy(Base):
    __tablename__ = "policies"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    #: The policy in its canonical form (`service.model.backup_policy`).
    document: Mapped[dict[str, Any]]
    #: 1, and one more with each change: a caller that changes an older form is refused.
    revision: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    #: The blackout that is now, or begins within a minute, as the scheduler noted it last. None: there is none.
    blocked_from: Mapped[datetime | None]
    blocked_until: Mapped[datetime | None]


class DomainLabels(Base):
    """The labels that people give to a domain, whichever host it is on. Policies select by them."""

    __tablename__ = "domain_labels"

    domain_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    labels: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class Schedule(Base):
    """One track of one policy for one domain: when it is due next. `next_due_at` only moves forward while the rule stays as it is."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    policy_id: Mapped[str] = mapped_column(ForeignKey("policies.id", ondelete="CASCADE"))
    track: Mapped[str] = mapped_column(String(64))
    domain_id: Mapped[str] = mapped_column(String(36))
    domain_name: Mapped[str] = mapped_column(String(255))
    host_id: Mapped[str] = mapped_column(String(64))
    #: When the policy began to have the domain, also where the track was added or renamed later.
    created_at: Mapped[datetime]
    #: The instant that the rule names. None: the rule names no further instant.
    next_due_at: Mapped[datetime | None]
    #: When it is acted on: the instant with its jitter, or the end of a blackout.
    fire_at: Mapped[datetime | None]
    #: The job of the last run that made one.
    last_job_id: Mapped[str | None] = mapped_column(String(36))
    #: The rule that `next_due_at` follows, as JSON: where the track of the policy has another one, the policy was changed since.
    rule: Mapped[str] = mapped_column(Text)
    #: When the scheduler first saw that no host lists the domain. None: a host lists it.
    gone_since: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("policy_id", "track", "domain_id"),
        Index("ix_schedules_fire_at_id", "fire_at", "id"),
        Index("ix_schedules_domain_id", "domain_id"),
    )


class ScheduleRun(Base):
    """What became of one due instant of one schedule: written once, whatever number of schedulers there is. It outlives its schedule."""

    __tablename__ = "schedule_runs"

    schedule_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    policy_id: Mapped[str] = mapped_column(String(36))
    policy_name: Mapped[str] = mapped_column(String(64))
    track: Mapped[str] = mapped_column(String(64))
    domain_id: Mapped[str] = mapped_column(String(36))
    domain_name: Mapped[str] = mapped_column(String(255))
    #: `queued`, `missed` or `skipped` (`service.model.schedule`).
    outcome: Mapped[str] = mapped_column(String(16))
    #: Why it was missed or skipped.
    reason: Mapped[str | None] = mapped_column(String(32))
    facts: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(String(36))
    decided_at: Mapped[datetime]

    __table_args__ = (
        # With the outcome: of thousands of domains whose newest run made a job, no row is read.
        Index("ix_schedule_runs_domain_id_due_at_outcome", "domain_id", "due_at", "outcome"),
        Index("ix_schedule_runs_policy_id_due_at", "policy_id", "due_at"),
        Index("ix_schedule_runs_decided_at", "decided_at"),
    )


class RepositorySample(Base):
    """The free space of a repository, once in an hour at the most: when it will be full is told by them."""

    __tablename__ = "repository_samples"

    repository_id: Mapped[str] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    free_bytes: Mapped[int] = mapped_column(BigInteger)
