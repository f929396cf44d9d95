"""What tests do to a queue, each in a transaction of its own."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Job, Slot
from service.model.lifecycle import JobState
from service.records import queue
from service.records.queue import Claim, NewJob

LEASE_S = 60.0


def allow(database: Database, resource: str, n: int) -> None:
    with database.write() as session:
        queue.ensure_slots(session, resource, n)


def add(database: Database, new: NewJob) -> str:
    with database.write() as session:
        return queue.enqueue(session, new).job_id


def try_to_claim(
    database: Database, host: str = "hv1", *, only_kinds: list[str] | None = None, now: datetime | None = None
) -> Claim | None:
    with database.write() as session:
        return queue.claim(session, host, "me", LEASE_S, only_kinds=only_kinds, now=now)


def claimed(database: Database, host: str = "hv1", *, only_kinds: list[str] | None = None) -> Claim:
    claim = try_to_claim(database, host, only_kinds=only_kinds)
    assert claim is not None
    return claim


def finish(database: Database, claim: Claim, state: JobState = JobState.succeeded) -> None:
    with database.write() as session:
        queue.finish(session, claim.job_id, claim.lease_token, state, {"phase": None})


def everything_expires(database: Database) -> None:
    with database.write() as session:
        queue.release_expired(session, "hv1", now=datetime.now(UTC) + timedelta(days=1))


def resolve(database: Database, job_id: str, to: JobState, values: dict[str, object] | None = None) -> JobState:
    with database.write() as session:
        return queue.resolve_interrupted(session, job_id, to, values or {})


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def slots_of(database: Database, resource: str) -> list[str | None]:
    with database.read() as session:
        return list(session.scalars(select(Slot.job_id).where(Slot.resource == resource).order_by(Slot.n)))


def slots_in_use(database: Database) -> dict[str, list[str]]:
    taken: dict[str, list[str]] = {}
    with database.read() as session:
        for slot in session.scalars(select(Slot).where(Slot.job_id.is_not(None))):
            taken.setdefault(slot.resource, []).append(str(slot.job_id))
    return taken


def run_together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
