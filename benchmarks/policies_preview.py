"""The preview of retention in a repository of 20,000 points: one request after the other, with every point in the answer."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks import interleaving
from benchmarks.databases import KINDS, Databases
from benchmarks.interleaving import Course, Plan, Turn
from benchmarks.service_process import ServiceProcess
from service.db.base import table_of
from service.db.engine import Database, open_engine
from service.db.tables import RecoveryPoint
from service.model.backup_policy import BackupPolicy
from service.model.lifecycle import PointState
from service.model.origin import Origin
from service.model.repository import RepositoryState
from service.records import policies, repositories
from service.records.repositories import Look, Registration
from tests.lab.places import LabError

DOMAINS, POINTS = 200, 100
"""Domains, and points of each: nights that end at `NEWEST`."""
CHAIN = 20
"""Points that stand on each other."""
NEWEST = datetime(2026, 6, 30, 22, tzinfo=UTC)
RETENTION = {"keep_last": 7, "keep_daily": 14, "keep_weekly": 8, "keep_monthly": 12}
POLICY = {
    "name": "production",
    "selector": {"all_the_rest": True},
    "tracks": [
        {
            "name": "nightly",
            "job": {"kind": "backup", "repository": "nas"},
            "schedule": {"cron": "0 22 * * *", "time_zone": "Europe/Berlin"},
            "retention": RETENTION,
        }
    ],
}


def measure(found: Databases, plan: Plan) -> tuple[Course, dict[str, float]]:
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for kind in KINDS:
            url = found.url(kind, "preview")
            service = ServiceProcess("serve", found.folder / f"state-{kind}-preview", {"STILLPOINT_DATABASE_URL": url})
            service.migrate()
            _fill(url)
            turns[kind] = _turn(stack.enter_context(service))
        course = interleaving.run("preview of 20,000 points", turns, plan)
    medians = {kind: course.median(kind, "ms") for kind in KINDS}
    return course, {"preview_20000_ms": max(medians.values())} | {f"preview_20000_ms: {kind}": ms for kind, ms in medians.items()}


def _turn(service: ServiceProcess) -> Turn:
    client = service.client()

    def turn() -> interleaving.Numbers:
        began = time.perf_counter()
        content = client.post_bytes("/api/v1/retention/preview", {"repository": "nas"}, (200,))
        took_s = time.perf_counter() - began
        answer = json.loads(content)
        if len(answer["points"]) != DOMAINS * POINTS or not answer["goes"]:
            raise LabError(f"the preview had {len(answer['points'])} points, of which {answer['goes']} would go")
        return {"ms": took_s * 1000}

    return turn


def _fill(url: str) -> None:
    database = Database(open_engine(url))
    try:
        with database.write() as session:
            row = repositories.add(session, Registration("nas", "/srv/nas", "bench"), NEWEST)
            repositories.note_look(session, row.id, Look(RepositoryState.ready, format_version=1), NEWEST, asked_at=NEWEST)
            policies.add(session, BackupPolicy.from_document(POLICY).as_document(), NEWEST)
            _add_points(session, row.id)
    finally:
        database.dispose()


def _add_points(session: Session, repository_id: str) -> None:
    for domain in range(DOMAINS):
        session.execute(insert(table_of(RecoveryPoint)), list(_points_of(domain, repository_id)))


def _points_of(domain: int, repository_id: str) -> Iterator[dict[str, Any]]:
    domain_id = str(UUID(int=domain + 1))
    for night in range(POINTS):
        at = NEWEST - timedelta(days=POINTS - 1 - night)
        proof = {"kind": "bytes", "at": at.isoformat(), "ok": True, "facts": {"by": "seal", "stamps": {"folder": "x" * 60}}, "job_id": None}
        yield {
            "id": _point_id(domain, night),
            "kind": "backup",
            "domain_id": domain_id,
            "domain_name": f"db{domain}",
            "host_id": "bench",
            "created_at": at,
            "point_in_time_at": at,
            "verdict": "filesystem",
            "labels": Origin("production", "nightly").as_labels(),
            "disks": [{"target": "vda", "file": "vda.qcow2"}],
            "size_bytes": 1 << 30,
            "state": PointState.sealed.value,
            "repository_id": repository_id,
            "folder": f"domains/{domain_id}/{night}",
            "manifest_digest": "0" * 64,
            "parents": [_point_id(domain, night - 1)] if night % CHAIN else [],
            "pinned": False,
            "is_encrypted": False,
            "proofs": [proof],
        }


def _point_id(domain: int, night: int) -> str:
    return str(UUID(int=(domain + 1) * 1_000_000 + night))
