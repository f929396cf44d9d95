"""Takes the next job of a host, and with it the right to run that job."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import log
from service.db.base import table_of
from service.db.engine import database_now
from service.db.tables import Job
from service.errors import RecordUnreadable, VersionUnknown
from service.model import requests
from service.model.kinds import kind_of
from service.model.lifecycle import JobState
from service.model.requests import JobRequest
from service.records import policy_limits, slots
from service.records.locks import the_domain
from service.records.moves import move
from service.records.next_job import NextJob

_logger = log.get(__name__)


@dataclass(frozen=True)
class Claim:
    """A job and the right to run it while the lease is renewed. `intent` and `phases` come from earlier attempts."""

    job_id: str
    lease_token: str
    kind: str
    domain_id: str | None
    domain_name: str | None
    host_id: str
    request: JobRequest
    labels: dict[str, Any]
    attempt: int
    max_attempts: int
    intent: dict[str, Any] | None
    phases: list[Any]
    #: The number of this follow-up job of a job that fell short. 0: a caller asked for the job.
    shortfall_try: int = 0
    #: A caller cancelled it between two attempts: it only undoes what the earlier one left.
    is_cancelled: bool = False

    @property
    def guest_id(self) -> str:
        """The domain whose guest the job works on. Raises ValueError: the job is not about a domain."""
        return the_domain(self.domain_id)


def claim(
    session: Session,
    host_id: str,
    owner: str,
    lease_seconds: float,
    *,
    only_kinds: Collection[str] | None = None,
    now: datetime | None = None,
) -> Claim | None:
    """Take the next job of this host that may run: first a thaw, then the job that has been due for the longest time. `now`: for tests.

    None: no job may run, or another worker is taking it now. Ask again at the next wake-up.
    """
    now = now or database_now(session)
    search = NextJob(host_id, now, only_kinds)
    while (job := search.locked(session)) is not None:
        try:
            request = requests.read(job.kind, job.request, job.request_version)
        except (RecordUnreadable, VersionUnknown) as error:
            # A newer API made the job. The job waits until this worker is restarted with the newer version.
            _tell_once(job.id, error.detail)
            search.jobs.add(job.id)
            continue
        try:
            with session.begin_nested():
                lane = kind_of(job.kind).lane
                if lane is not None:
                    slots.take(session, job.id, host_id, lane, job.repository_id)
                    policy_limits.take(session, job, kind_of(job.kind))
                return _start(session, job, request, owner, lease_until=now + timedelta(seconds=lease_seconds), now=now)
        except slots.SlotGone:
            return None
        except IntegrityError:
            # The index refused a second running job with the same lock.
            if job.lock_key is None:
                raise
            search.locks.add(job.lock_key)
    return None


@lru_cache(maxsize=1_000)
def _tell_once(job_id: str, detail: str) -> None:
    """Tell the log once in this process, because the worker finds the job at every look at the queue."""
    _logger.warning("job_cannot_be_read", job_id=job_id, detail=detail)


def next_kind(session: Session, host_id: str, *, only_kinds: Collection[str] | None = None) -> str | None:
    """The kind of the job that `claim` would take. None: no job may run. This only reads, so that it blocks no writer."""
    return NextJob(host_id, database_now(session), only_kinds).kind(session)


def _start(session: Session, job: Row[Any], request: JobRequest, owner: str, *, lease_until: datetime, now: datetime) -> Claim:
    token, attempt = str(uuid4()), job.attempt + 1
    values = {
        "lease_token": token,
        "lease_until": lease_until,
        "lease_owner": owner,
        "started_at": job.started_at or now,
        "attempt": attempt,
        "phase": None,
    }
    change = update(table_of(Job)).where(Job.id == job.id).values(values)
    move(session, change, JobState.queued, JobState.running, now=now, facts={"attempt": attempt})
    return Claim(
        job_id=job.id,
        lease_token=token,
        kind=job.kind,
        domain_id=job.domain_id,
        domain_name=job.domain_name,
        host_id=job.host_id,
        request=request,
        labels=job.labels,
        attempt=attempt,
        max_attempts=job.max_attempts,
        intent=job.intent,
        phases=job.phases,
        shortfall_try=job.shortfall_try,
        is_cancelled=job.cancel_requested,
    )
