"""Domains, policies and a scheduler with a clock of its own: for tests of what is due, and of what becomes of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.config import Settings
from service.db import documents
from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Domain, Job, Schedule, ScheduleRun
from service.model.backup_policy import BackupPolicy
from service.records import policies, queue
from service.records.repositories import Registration
from service.records.repositories import add as add_repository
from service.scheduler.scheduling import Scheduler
from tests.api.world import add_domain, add_host
from tests.model.written_policies import a_policy, a_track

BEGIN = datetime(2026, 6, 15, 0, 0, tzinfo=UTC)
"""A Monday."""


def nightly(name: str = "nightly", cron: str = "0 2 * * *", *, job: dict[str, Any] | None = None, **schedule: Any) -> dict[str, Any]:
    """A track with snapshots at two o'clock UTC."""
    return a_track(name, job=job or {"kind": "snapshot"}, schedule={"cron": cron, "time_zone": "UTC", **schedule})


def for_databases(*tracks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A policy for all domains whose name begins with db-."""
    return BackupPolicy.from_document(a_policy(tracks=list(tracks) or [nightly()], **more)).as_document()


class Scheduled:
    """`now`: by the clock of all schedulers of this scene."""

    def __init__(self, database: Database, now: datetime = BEGIN) -> None:
        self.database = database
        self.now = now
        self.woken = 0
        self.schedulers = [self.scheduler()]
        with database.write() as session:
            add_host(session)

    @property
    def scheduler_settings(self) -> Settings:
        return Settings(state_dir=Path("/nowhere"))

    def scheduler(self, **settings: Any) -> Scheduler:
        """Another one, as in a process that has just started."""
        chosen = Settings(state_dir=Path("/nowhere"), **settings)
        return Scheduler(chosen, self.database, wake=self._wake, clock=lambda _: self.now)

    def restart(self) -> None:
        self.schedulers = [self.scheduler()]

    def look(self) -> None:
        self.schedulers[0].look()

    def at(self, text: str) -> "Scheduled":
        """`15 02:00`, in June 2026 and UTC; or with its date. Then a look."""
        self.now = datetime.fromisoformat(text if text.startswith("2026-") else f"2026-06-{text}").replace(tzinfo=UTC)
        self.look()
        return self

    def later(self, **span: float) -> "Scheduled":
        self.now += timedelta(**span)
        self.look()
        return self

    # --- what people and hosts do -----------------------------------------------------------------

    def domain(self, name: str = "db-1", host: str = "hv1", **document: Any) -> str:
        with self.database.write() as session:
            return add_domain(session, name, f"id-of-{name}", host, **document)

    def domains(self, count: int) -> list[str]:
        return [self.domain(f"db-{n}") for n in range(count)]

    def undefine(self, domain_id: str, host: str = "hv1") -> None:
        with self.database.write() as session:
            session.execute(delete(Domain).where(Domain.id == domain_id, Domain.host_id == host))

    def host(self, name: str) -> None:
        with self.database.write() as session:
            add_host(session, name)

    def repository(self, name: str = "main") -> str:
        with self.database.write() as session:
            return add_repository(session, Registration(name, f"/srv/{name}", "hv1"), self.now).id

    def policy(self, document: dict[str, Any] | None = None) -> str:
        """Add it, or change the one of this name."""
        document = document or for_databases()
        with self.database.write() as session:
            known = {policy.name: policy for policy in policies.list_all(session)}
            if document["name"] in known:
                return policies.change(session, known[document["name"]], document, self.now).id
            return policies.add(session, document, self.now).id

    def remove_policy(self, name: str = "production") -> None:
        with self.database.write() as session:
            policies.remove(session, name, self.now)

    def label(self, domain_id: str, **labels: str) -> None:
        with self.database.write() as session:
            policies.set_labels(session, domain_id, labels, self.now)

    def end_jobs(self, state: str = "succeeded") -> None:
        """All that have not ended."""
        with self.database.write() as session:
            jobs = update(table_of(Job)).where(Job.state.in_(["queued", "running"]))
            documents.change_jobs(session, jobs.values(state=state, finished_at=self.now))

    # --- what is on record ------------------------------------------------------------------------

    def runs(self) -> list[tuple[str, str, str]]:
        """The domain, the instant, and the reason or else the outcome; by instant."""
        return [(run.domain_name, f"{run.due_at:%d %H:%M}", run.reason or run.outcome) for run in self.all_runs()]

    def of(self, name: str = "db-1") -> list[tuple[str, str]]:
        return [(due_at, what) for domain, due_at, what in self.runs() if domain == name]

    def all_runs(self) -> Sequence[ScheduleRun]:
        with self.database.read() as session:
            return session.scalars(select(ScheduleRun).order_by(ScheduleRun.due_at, ScheduleRun.domain_name, ScheduleRun.track)).all()

    def schedules(self) -> list[Schedule]:
        with self.database.read() as session:
            return list(session.scalars(select(Schedule).order_by(Schedule.domain_name, Schedule.track)))

    def next_due(self) -> dict[tuple[str, str], str]:
        """By domain and track."""
        return {(row.domain_name, row.track): f"{row.next_due_at:%d %H:%M}" for row in self.schedules() if row.next_due_at is not None}

    def jobs(self) -> list[Job]:
        with self.database.read() as session:
            return list(session.scalars(select(Job).order_by(Job.created_at, Job.id)))

    def fill_queue(self, name: str, waiting: int) -> None:
        with self.database.write() as session:
            for _ in range(waiting):
                queue.enqueue(session, _a_job(session, name))

    def _wake(self) -> None:
        self.woken += 1


def _a_job(session: Session, name: str) -> queue.NewJob:
    domain_id = session.scalars(select(Domain.id).where(Domain.name == name)).one()
    return queue.NewJob("preflight", domain_id, name, "hv1", {"kind": "preflight", "domain": name}, {})
