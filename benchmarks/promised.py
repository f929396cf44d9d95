"""Domains with policies, and what a month of nights left of them on record: most are protected, and some are so for each reason not."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.engine import Database, database_now
from service.db.tables import (
    Domain,
    Host,
    Job,
    LastJob,
    Policy,
    ProvenPoint,
    RecoveryPoint,
    Repository,
    RepositorySample,
    Schedule,
    ScheduleRun,
)
from service.model.backup_policy import BackupPolicy
from service.model.kinds import SEALS_POINT

POLICIES = 20
"""Each with domains of its own, by a pattern of their names. One domain in a hundred has none of them."""
HOSTS = 50
NIGHTS = 30
FAILS, IS_CRASH_ONLY = 20, 33
"""One domain in so many: its last job failed; its points are worse than promised."""
PROOFS = 10
"""One point in so many has a proof. Every second policy promises one."""
BATCH = 1_000
REPOSITORY = str(UUID(int=1))
Rows = Iterator[tuple[Any, dict[str, Any]]]


def fill(database: Database, domains: int) -> None:
    with database.write() as session:
        now = database_now(session)
        _fill_once(session, now)
    for begin in range(0, domains, BATCH):
        with database.write() as session:
            _insert(session, (row for n in range(begin, min(begin + BATCH, domains)) for row in _rows_of_domain(n, now)))


def _insert(session: Session, rows: Rows) -> None:
    by_table: dict[Any, list[dict[str, Any]]] = {}
    for entity, row in rows:
        by_table.setdefault(entity, []).append(row)
    for entity, of_table in by_table.items():
        session.execute(insert(table_of(entity)), of_table)


def _fill_once(session: Session, now: datetime) -> None:
    for n in range(HOSTS):
        session.add(
            Host(
                id=f"host-{n:02}",
                started_at=now,
                last_seen=now,
                version="bench",
                libvirt_uri="qemu:///system",
                versions={},
                libvirt_connected=True,
                # Alive as long as the benchmark lasts.
                lease_seconds=86_400.0,
            )
        )
    session.add(
        Repository(
            id=REPOSITORY,
            registered_id=REPOSITORY,
            name="main",
            path="/srv/main",
            host_id="host-00",
            reserve_bytes=1 << 30,
            created_at=now,
            state="ready",
            free_bytes=1 << 40,
        )
    )
    session.flush()
    for hour in range(14 * 24):
        at = now - timedelta(hours=hour)
        session.add(RepositorySample(repository_id=REPOSITORY, at=at, free_bytes=(1 << 40) + (hour << 26)))
    for n in range(POLICIES):
        document = BackupPolicy.from_document(_policy(n, now)).as_document()
        session.add(
            Policy(id=str(UUID(int=n)), name=document["name"], document=document, revision=1, created_at=_long_ago(now), updated_at=now)
        )


def _policy(n: int, now: datetime) -> dict[str, Any]:
    at_night = now - timedelta(hours=8)
    proof = {"kind": "bytes", "max_age_s": 30 * 86_400} if n % 2 else None
    job = {"kind": SEALS_POINT, "repository": "main", "leave_out": ["vdb"]}
    return {
        "name": f"policy-{n:02}",
        "selector": {"names": [f"vm-{n:02}-*"]},
        "tracks": [
            {"name": "nightly", "job": job, "schedule": {"cron": f"{at_night:%M %H} * * *", "time_zone": "UTC"}},
            {"name": "weekly", "job": job, "schedule": {"cron": "0 12 * * 6", "time_zone": "UTC", "jitter_s": 3600}},
        ],
        "promise": {"rpo_s": 26 * 3600, "verdict": "filesystem", "proof": proof},
    }


def _long_ago(now: datetime) -> datetime:
    return now - timedelta(days=200)


def _rows_of_domain(n: int, now: datetime) -> Rows:
    domain_id, policy = str(UUID(int=1_000_000 + n)), n % POLICIES
    name = f"vm-{policy:02}-{n:05}" if n % 100 else f"spare-{n:05}"
    host = f"host-{n % HOSTS:02}"
    named = {"domain_id": domain_id, "domain_name": name}
    disks = [{"target": f"vd{letter}", "format": "qcow2", "path": f"/srv/images/{name}-{letter}.qcow2"} for letter in "abcd"]
    document = {"persistent": True, "disks": disks, "agent": {"channel": True, "connected": True}, "filesystems": disks, "os": None}
    yield Domain, {"host_id": host, "id": domain_id, "name": name, "state": "running", "published_at": now, "document": document}
    last_night = now - timedelta(hours=8)
    has_failed = n % FAILS == 1
    newest = last_night - timedelta(days=2) if has_failed else last_night
    yield from _points(n, named, host, newest)
    yield from _jobs(named, host, newest, last_night, has_failed=has_failed)
    for track in ("nightly", "weekly"):
        schedule = {"id": str(uuid4()), "policy_id": str(UUID(int=policy)), "track": track, **named}
        fire_at = last_night + timedelta(days=1)
        yield (
            Schedule,
            {**schedule, "host_id": host, "created_at": _long_ago(now), "next_due_at": fire_at, "fire_at": fire_at, "rule": "{}"},
        )
        for night in range(NIGHTS if track == "nightly" else NIGHTS // 7):
            due_at = last_night - timedelta(days=night if track == "nightly" else 7 * night, minutes=track == "weekly")
            run = {"schedule_id": schedule["id"], "policy_id": schedule["policy_id"], "policy_name": f"policy-{policy:02}", "track": track}
            yield ScheduleRun, {**run, **named, "due_at": due_at, "outcome": "queued", "facts": {}, "decided_at": due_at}


def _points(n: int, named: dict[str, str], host: str, newest: datetime) -> Rows:
    verdict = "crash" if n % IS_CRASH_ONLY == 2 else "filesystem"
    for night in range(NIGHTS):
        point_id, at = str(uuid4()), newest - timedelta(days=night)
        is_proven = (night + n) % PROOFS == 0
        proofs = [{"kind": "bytes", "at": at.isoformat(), "ok": True, "facts": {}, "job_id": None}] if is_proven else []
        yield (
            RecoveryPoint,
            {
                "id": point_id,
                "kind": SEALS_POINT,
                **named,
                "host_id": host,
                "created_at": at,
                "point_in_time_at": at,
                "verdict": verdict,
                "labels": {},
                "disks": [{"target": "vda", "file": "vda.qcow2", "format": "qcow2", "virtual_size": 10 << 30}],
                "size_bytes": 1 << 30,
                "state": "sealed",
                "document": "x" * 1_500,
                "repository_id": REPOSITORY,
                "folder": f"domains/{named['domain_id']}/{at:%Y%m%d}",
                "parents": [],
                "pinned": False,
                "is_encrypted": False,
                "proofs": proofs,
            },
        )
        if is_proven:
            yield ProvenPoint, {"point_id": point_id, "kind": "bytes", "domain_id": named["domain_id"], "point_in_time_at": at, "at": at}


def _jobs(named: dict[str, str], host: str, newest: datetime, last_night: datetime, *, has_failed: bool) -> Rows:
    last = {"domain_id": named["domain_id"], "kind": SEALS_POINT, "job_id": str(uuid4()), "took_s": 900.0}
    if not has_failed:
        yield LastJob, {**last, "state": "succeeded", "ended_at": newest, "error_code": None, "in_a_row": 1, "since": newest}
        return
    error = {"code": "agent_not_answering", "title": "The agent does not answer", "detail": "It does not.", "remedy": "Start it."}
    times = dict.fromkeys(("created_at", "run_after", "updated_at", "started_at", "finished_at"), last_night)
    yield (
        Job,
        {
            "id": last["job_id"],
            "kind": SEALS_POINT,
            "state": "failed",
            **named,
            "host_id": host,
            **times,
            "request": {},
            "labels": {},
            "phases": [],
            "verdict_reasons": [],
            "error": {**error, "facts": {"domain": named["domain_name"]}},
        },
    )
    code = "agent_not_answering"
    yield (
        LastJob,
        {**last, "state": "failed", "ended_at": last_night, "error_code": code, "in_a_row": 2, "since": newest + timedelta(days=1)},
    )
