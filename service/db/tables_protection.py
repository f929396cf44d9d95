"""What the list of protection reads at once for every domain, so that it reads neither all jobs nor all points.

Import the tables from `service.db.tables`.
"""

from datetime import datetime

from sqlalchemy import Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base


class LastJob(Base):
    """The job of a domain and of a kind that ended last, and how many before it ended alike. Written with the end of the job."""

    __tablename__ = "last_jobs"

    domain_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    #: The job may have been removed because of its age.
    job_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[str] = mapped_column(String(16))
    ended_at: Mapped[datetime]
    #: The code of its error. None: it succeeded.
    error_code: Mapped[str | None] = mapped_column(String(64))
    #: Jobs in a row that ended with this code, with this one; and when the first of them ended.
    in_a_row: Mapped[int] = mapped_column(Integer)
    since: Mapped[datetime]
    #: How long the newest job took that succeeded, from when it was made to its end. None: none has succeeded yet.
    took_s: Mapped[float | None] = mapped_column(Float)


class ProvenPoint(Base):
    """A point whose newest proof of a kind is good. Written with the proofs of the point."""

    __tablename__ = "proven_points"

    point_id: Mapped[str] = mapped_column(ForeignKey("recovery_points.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    domain_id: Mapped[str] = mapped_column(String(36))
    point_in_time_at: Mapped[datetime]
    #: When it was proven.
    at: Mapped[datetime]

    __table_args__ = (Index("ix_proven_points_domain_id_kind_point_in_time_at", "domain_id", "kind", "point_in_time_at", "at"),)
