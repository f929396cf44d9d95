"""Policies, schedules, runs, points and jobs of domains, as the service would have left them on record."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from service.db.tables import Policy, Repository, Schedule, ScheduleRun
from service.model.backup_policy import BackupPolicy
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.model.verdict import Verdict
from service.records import policies, proven_points
from tests.api.world import DB1, add_job, add_recovery_point

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PROMISED = {"rpo_s": 26 * 3600, "verdict": "filesystem", "proof": None}
REPOSITORY = "1c1b2f3e-0000-4000-8000-000000000001"


def now() -> datetime:
    return datetime.now(UTC)


def add_repository(session: Session, name: str = "main", **columns: Any) -> str:
    values = {"id": REPOSITORY, "path": f"/srv/{name}", "host_id": "hv1", "reserve_bytes": 0, "created_at": now(), "state": "ready"}
    values |= columns
    session.add(Repository(registered_id=values["id"], name=name, **values))
    session.flush()
    return str(values["id"])


def add_policy(
    session: Session, name: str = "production", *, names: Sequence[str] = ("*",), changed_ago: timedelta = 30 * DAY, **fields: Any
) -> Policy:
    """Every night, of every domain, into repository `main`."""
    track = {
        "name": "nightly",
        "job": {"kind": "backup", "repository": "main"},
        "schedule": {"cron": "0 2 * * *", "time_zone": "UTC"},
    }
    document = {"name": name, "selector": {"names": list(names)}, "tracks": [track], "promise": PROMISED, **fields}
    return policies.add(session, BackupPolicy.from_document(document).as_document(), now() - changed_ago)


def add_schedule(
    session: Session,
    policy: Policy,
    domain_id: str = DB1,
    *,
    domain: str = "db1",
    since: timedelta = 20 * DAY,
    fires_in: timedelta | None = 10 * HOUR,
    track: str = "nightly",
) -> str:
    fire_at = now() + fires_in if fires_in is not None else None
    schedule = Schedule(
        id=str(uuid4()),
        policy_id=policy.id,
        track=track,
        domain_id=domain_id,
        domain_name=domain,
        host_id="hv1",
        created_at=now() - since,
        next_due_at=fire_at,
        fire_at=fire_at,
        rule="{}",
    )
    session.add(schedule)
    session.flush()
    return schedule.id


def add_run(
    session: Session, policy: Policy, schedule_id: str, ago: timedelta, outcome: str, reason: str | None = None, **facts: Any
) -> None:
    schedule = session.get_one(Schedule, schedule_id)
    run = ScheduleRun(
        schedule_id=schedule_id,
        due_at=now() - ago,
        policy_id=policy.id,
        policy_name=policy.name,
        track=schedule.track,
        domain_id=schedule.domain_id,
        domain_name=schedule.domain_name,
        outcome=outcome,
        reason=reason,
        facts=facts,
        decided_at=now() - ago,
    )
    session.add(run)
    session.flush()


def add_point(
    session: Session,
    at: datetime,
    *,
    domain_id: str = DB1,
    verdict: str = Verdict.filesystem,
    state: str = "sealed",
    proven_at: datetime | None = None,
    kind: ProofKind = ProofKind.bytes,
    reasons: Sequence[dict[str, str]] = (),
    shut_off_cleanly: bool | None = None,
) -> str:
    """With the job that took it."""
    evidence = {"survey": {"shut_off_cleanly": shut_off_cleanly}}
    job_id = add_job(session, at, kind="backup", domain_id=domain_id, verdict=verdict, verdict_reasons=list(reasons), evidence=evidence)
    proofs = [Proof(kind, True).as_document(proven_at)] if proven_at is not None else []
    columns = {"domain_id": domain_id, "verdict": verdict, "state": state, "proofs": proofs, "kind": "backup"}
    point_id = add_recovery_point(session, job_id, at, **columns)
    proven_points.write(session, point_id, proofs)
    return point_id
