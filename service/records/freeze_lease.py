"""Says which job or client has a guest frozen.

The job itself is the lease: it runs or waits for recovery, and its intent says `will_freeze`. Then a freeze may have been sent, and no
thaw was answered yet. The database refuses a second running job of the domain on any host (docs/decisions/0011). Every other freeze is
foreign, and is left alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import Domain, Job
from service.errors import GuestHookHangs, GuestStillFrozen, HostForgotten
from service.model.foreign_freeze import ForeignFreeze, FrozenBy, by_another, by_job, by_unknown, in_one_shape
from service.model.kinds import names_of
from service.model.lifecycle import JobState
from service.model.policy import DEFAULT_FREEZE_TIMEOUT_MS, DEFAULT_HOLD_LIMIT_MS
from service.model.window import FreezeOutcome

AT_WORK = (JobState.running.value, JobState.interrupted.value)
FREEZES_NOTHING = names_of(lambda kind: not kind.freezes)
"""A kind of a newer version, which is not known here, counts as one that may freeze."""
NOTHING_FROZEN = frozenset({FreezeOutcome.not_needed, FreezeOutcome.not_requested, FreezeOutcome.not_possible, FreezeOutcome.blocked})
NO_THAW_ANSWERED = (GuestStillFrozen.code, GuestHookHangs.code)
LATEST_JOBS = 20
"""Jobs of a domain that are searched for the one that froze the guest. Older jobs do not count."""


@dataclass(frozen=True)
class Window:
    """A recorded freeze window. `since` is just before freeze was sent. The guest must be thawed `limit_s` seconds later."""

    job_id: str
    domain_id: str
    domain_name: str
    host_id: str
    since: datetime
    limit_s: float


def open_windows(session: Session, domain_ids: Collection[str] | None = None) -> list[Window]:
    """Windows without a recorded end, also those of dead workers. `domain_ids` None: the windows of all domains."""
    columns = (Job.id, Job.domain_id, Job.domain_name, Job.host_id, Job.intent, Job.updated_at)
    rows = select(*columns).where(Job.state.in_(AT_WORK), Job.kind.not_in(FREEZES_NOTHING))
    if domain_ids is not None:
        rows = rows.where(Job.domain_id.in_(domain_ids))
    return [_window(row) for row in session.execute(rows) if _will_freeze(row)]


def freezer_of(
    session: Session, domain_id: str, *, thawed_at: datetime | None, looked_at: datetime, excluding: str | None = None
) -> FrozenBy | None:
    """The job or client that has frozen a guest which was seen frozen at `looked_at` or later. None: a job worked on the guest then.

    `thawed_at`: when the guest was last seen thawed; None: never. Both times are by the clock of the database. `excluding`: the job that
    asks.
    """
    jobs = [job for job in _latest(session, domain_id) if job.id != excluding]
    # A job that has not ended and is not at work was put back into the queue. Recovery has just thawed its guest.
    if any(job.state in AT_WORK or (job.finished_at or job.updated_at) >= looked_at for job in jobs):
        return None
    froze = [job for job in jobs if job.finished_at is not None and _may_have_frozen(job)]
    last = max(froze, key=lambda job: job.finished_at, default=None)
    if last is None or (thawed_at is not None and last.finished_at <= thawed_at):
        # If the guest was never seen thawed, a foreign freeze looks the same as a freeze of a job whose record is gone.
        return by_another() if thawed_at is not None else by_unknown()
    return by_job(last.id) if _left_frozen(last) else by_unknown()


def foreign_freeze(session: Session, domain_id: str, host_id: str, job_id: str) -> ForeignFreeze:
    """What is known about the freeze of a guest that the job has just seen frozen."""
    now = database_now(session)
    published = session.get(Domain, (host_id, domain_id))
    document = published.document if published is not None else {}
    if document.get("frozen_since"):
        return ForeignFreeze(document["frozen_since"], in_one_shape(document.get("frozen_by")) or by_unknown())
    thawed_at = published.published_at if published is not None and document.get("frozen") is False else None
    by = freezer_of(session, domain_id, thawed_at=thawed_at, looked_at=now, excluding=job_id)
    return ForeignFreeze(rfc3339(now), by or by_unknown())


def _latest(session: Session, domain_id: str) -> Sequence[Row[Any]]:
    columns = (Job.id, Job.state, Job.finished_at, Job.updated_at, Job.intent, Job.freeze, Job.error)
    started = select(*columns).where(Job.domain_id == domain_id, Job.kind.not_in(FREEZES_NOTHING), Job.started_at.is_not(None))
    return session.execute(started.order_by(Job.created_at.desc(), Job.id.desc()).limit(LATEST_JOBS)).all()


def _will_freeze(job: Row[Any]) -> bool:
    return bool(job.intent and job.intent.get("will_freeze"))


def _left_frozen(job: Row[Any]) -> bool:
    """The thaw of the job was never answered, or it is not known whether it was answered."""
    code = (job.error or {}).get("code")
    return code in NO_THAW_ANSWERED or (code == HostForgotten.code and _will_freeze(job))


def _may_have_frozen(job: Row[Any]) -> bool:
    return _will_freeze(job) or (job.freeze is not None and job.freeze.get("outcome") not in NOTHING_FROZEN)


def _window(row: Row[Any]) -> Window:
    window = row.intent.get("window") or {}
    since = datetime.fromisoformat(window["since"]) if "since" in window else row.updated_at
    limit_ms = window.get("limit_ms", DEFAULT_FREEZE_TIMEOUT_MS + DEFAULT_HOLD_LIMIT_MS)
    return Window(row.id, row.domain_id, row.domain_name, row.host_id, since, limit_ms / 1000)
