"""Rows as workers would have left them, for the API to answer from."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.tables import Domain, Host, Job, JobLabel, RecoveryPoint
from service.model.documents import texts_of_point
from service.records.locks import domain_key

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DB1 = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
WEB1 = "0b9f6c58-93a3-4a39-8d0f-52d7f2d5a733"


def add_host(session: Session, host_id: str = "hv1", seen_ago: timedelta = timedelta(0)) -> str:
    seen = datetime.now(UTC) - seen_ago
    session.add(
        Host(
            id=host_id,
            started_at=seen,
            last_seen=seen,
            version="0.1.0",
            libvirt_uri="qemu:///system",
            versions={"libvirt": "9.0.0"},
            libvirt_connected=True,
            inventory_at=seen,
        )
    )
    session.flush()
    return host_id


def add_domain(
    session: Session,
    name: str = "db1",
    domain_id: str | None = None,
    host_id: str = "hv1",
    published_ago: timedelta = timedelta(0),
    **document: Any,
) -> str:
    domain_id = domain_id or str(uuid4())
    published: dict[str, Any] = {
        "disks": [{"target": "vda", "can_snapshot": True}],
        "filesystems": None,
        "agent": {"channel": True, "connected": True},
        "os": None,
        "frozen": False,
        "frozen_since": None,
        "frozen_by": None,
        "persistent": True,
    }
    published_at = datetime.now(UTC) - published_ago
    session.add(Domain(host_id=host_id, id=domain_id, name=name, state="running", published_at=published_at, document=published | document))
    session.flush()
    return domain_id


ANOTHER: dict[str, Any] = {"kind": "not_stillpoint", "job_id": None}
FROZEN: dict[str, Any] = {"frozen": True, "frozen_since": "2026-03-01T11:00:00.000000Z", "frozen_by": ANOTHER}
"""Of a domain's document: somebody else holds the guest."""


def window_intent(since: datetime, limit_ms: int = 150_000) -> dict[str, Any]:
    """Of a running job: it has sent freeze."""
    window = {"since": since.isoformat(), "limit_ms": limit_ms}
    return {"will_freeze": True, "overlays": [], "window": window}


def add_job(session: Session, created_at: datetime = NOW, labels: dict[str, str] | None = None, **columns: Any) -> str:
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "kind": "snapshot",
        "state": "succeeded",
        "domain_id": DB1,
        "domain_name": "db1",
        "host_id": "hv1",
        "created_at": created_at,
        "run_after": created_at,
        "updated_at": created_at,
        "attempt": 1,
        "request": {
            "kind": "snapshot",
            "domain": "db1",
            "host": None,
            "disks": None,
            "freeze": {"mode": "required"},
            "required_verdict": None,
        },
        "labels": labels or {},
        "phases": [],
        "verdict_reasons": [],
    }
    values |= columns
    values.setdefault("lock_key", None if values["kind"] == "thaw" else domain_key(values["domain_id"]))
    job = Job(**values)
    session.add(job)
    session.flush()
    session.add_all(JobLabel(key=key, value=value, created_at=created_at, job_id=job.id) for key, value in (labels or {}).items())
    session.flush()
    change_job(session, job.id)
    return job.id


def change_job(session: Session, job_id: str, **columns: Any) -> None:
    """With its texts, as the service does."""
    documents.change_jobs(session, update(table_of(Job)).where(Job.id == job_id).values({"attempt": Job.attempt, **columns}))


def add_recovery_point(session: Session, job_id: str, created_at: datetime = NOW, **columns: Any) -> str:
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "job_id": job_id,
        "kind": "snapshot",
        "domain_id": DB1,
        "domain_name": "db1",
        "host_id": "hv1",
        "created_at": created_at,
        "point_in_time_at": created_at,
        "verdict": "filesystem",
        "state": "taken",
        "pinned": False,
        "is_encrypted": False,
        "labels": {},
        "disks": [{"target": "vda", "file": "/images/db1.qcow2", "format": "qcow2", "virtual_size": 1024}],
    }
    point = RecoveryPoint(**(values | columns))
    point.document = texts_of_point(point)["document"]
    session.add(point)
    session.flush()
    return point.id
