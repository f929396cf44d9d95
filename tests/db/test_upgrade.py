"""An upgrade from the schema of revision 0007, with 10,000 jobs in every state: nothing is lost, and what was at work is recovered."""

import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, Table, func, insert, select

from service.db import schema
from service.db.engine import Database, open_engine
from service.db.tables import Event, Job, Slot
from service.model.lifecycle import FINAL_STATES, JobState
from service.records import queue
from tests.fakes import FakeDomain
from tests.scenes.documents import stale_texts, texts
from tests.scenes.host import HOST, Scene

JOBS = 10_000
QUEUED, RUNNING, INTERRUPTED = 40, 4, 4
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = ("jobs", "job_labels", "slots", "gates", "recovery_points")
IN_WINDOW = str(uuid.UUID(int=7))
Rows = list[dict[str, Any]]


@pytest.fixture
def old(empty_database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database as version 0007 left it."""
    database = Database(open_engine(empty_database_url))
    with schema.alone(database.engine) as connection:
        command.upgrade(schema.alembic_config(connection), "0007")
        _fill(connection, tmp_path / "images")
    yield database
    database.dispose()


def test_an_upgrade_loses_nothing(old: Database) -> None:
    before = _contents(old)
    schema.migrate(old.engine)
    after = _contents(old)
    assert Counter(row["state"] for row in after["jobs"].values()) == Counter(row["state"] for row in before["jobs"].values())
    for table in ("jobs", "job_labels", "gates", "recovery_points"):
        assert len(after[table]) == len(before[table])
        assert all(row.items() <= after[table][key].items() for key, row in before[table].items()), table
    # Whoever ran keeps the permit, which is one of the quick lane now.
    permits = {(key[0] + ":quick", key[1]): row["job_id"] for key, row in before["slots"].items()}
    assert {key: row["job_id"] for key, row in after["slots"].items()} == permits
    locks = {row["lock_key"] is not None for row in after["jobs"].values() if row["state"] not in FINAL_STATES and row["kind"] != "thaw"}
    assert locks == {True}
    assert {row["lock_key"] for row in after["jobs"].values() if row["kind"] == "thaw"} == {None}
    assert len(texts(old)) == len(before["jobs"])
    assert stale_texts(old) == []


def test_after_an_upgrade_what_was_at_work_is_recovered_and_what_waited_runs(old: Database, tmp_path: Path) -> None:
    schema.migrate(old.engine)
    scene = Scene(old, tmp_path)
    scene.domain.agent.freeze_by_somebody_else()
    with old.read() as session:
        held = set(session.scalars(select(Job.lock_key).where(Job.state.in_(("running", "interrupted")))))
    with old.write() as session:
        claim = queue.claim(session, HOST, "me", 60)
        assert claim is not None
        assert claim.kind == "thaw" or f"domain:{claim.domain_id}" not in held, "the domain of a job at work is not taken"
        session.rollback()

    scene.recovery(thaw_patience_s=0.2).recover(IN_WINDOW)
    assert not scene.domain.agent.frozen
    recovered = scene.job(IN_WINDOW)
    assert (recovered.state, recovered.phases[-1]["name"]) == ("queued", "recover")
    assert scene.overlays() == []

    with old.write() as session:
        assert len(queue.release_expired(session, HOST, all_running=True)) == RUNNING
        for job in queue.interrupted(session, HOST):
            queue.resolve_interrupted(session, job.id, JobState.queued, {})
    assert _drain(old) == QUEUED + RUNNING + INTERRUPTED
    with old.read() as session:
        assert session.scalar(select(func.count()).select_from(Job).where(Job.state.not_in(FINAL_STATES))) == 0
        assert session.scalar(select(func.count()).select_from(Job)) == JOBS
        assert session.scalar(select(func.count()).select_from(Slot).where(Slot.job_id.is_not(None))) == 0
        ended = select(func.count()).select_from(Event).where(Event.moved_to == "succeeded")
        assert session.scalar(ended) == QUEUED + RUNNING + INTERRUPTED


def _drain(database: Database) -> int:
    """Claim and finish until nothing waits; answers how many jobs there were."""
    done = 0
    while True:
        with database.write() as session:
            claim = queue.claim(session, HOST, "me", 60)
            if claim is None:
                return done
            queue.finish(session, claim.job_id, claim.lease_token, JobState.succeeded, {})
        done += 1


def _contents(database: Database) -> dict[str, dict[Any, dict[str, Any]]]:
    """By table and primary key, as the database itself describes its tables."""
    contents = {}
    with database.engine.connect() as connection:
        for name in TABLES:
            table = Table(name, MetaData(), autoload_with=connection)
            rows = [dict(row._mapping) for row in connection.execute(select(table))]
            contents[name] = {tuple(row[column.name] for column in table.primary_key.columns): row for row in rows}
    return contents


# --- what 0007 left -------------------------------------------------------------------------------


def _fill(connection: Connection, images: Path) -> None:
    jobs = [_in_window(images), *_at_work(), *_waiting()]
    jobs += [_job(number, _END[number % 3], f"vm{number % 50}") for number in range(JOBS - len(jobs))]
    running = [job["id"] for job in jobs if job["state"] == "running"]
    ended = [job for job in jobs if job["state"] == "succeeded"][:500]
    _add(connection, "jobs", jobs)
    _add(connection, "slots", [{"resource": f"host:{HOST}", "n": n, "job_id": job_id} for n, job_id in enumerate(running)])
    _add(connection, "job_labels", [{"key": "plan", "value": "nightly", "created_at": BEGAN, "job_id": job["id"]} for job in ended])
    gate = {"state": "closed", "token_digest": "digest", "hold_budget_ms": 1000}
    _add(connection, "gates", [{"job_id": job["id"], **gate} for job in ended[:50]])
    _add(connection, "recovery_points", [_point(job) for job in ended])


def _add(connection: Connection, name: str, rows: Rows) -> None:
    connection.execute(insert(Table(name, MetaData(), autoload_with=connection)), rows)


_END = ("succeeded", "failed", "cancelled")


def _job(number: int, state: str, domain: str, **columns: Any) -> dict[str, Any]:
    created = BEGAN + timedelta(seconds=number)
    return {
        "id": str(uuid.uuid4()),
        "kind": "snapshot",
        "state": state,
        "phase": None,
        "domain_id": f"id-of-{domain}",
        "domain_name": domain,
        "host_id": HOST,
        **dict.fromkeys(("created_at", "run_after", "updated_at"), created),
        "started_at": created if state != "queued" else None,
        "finished_at": created if state in _END else None,
        "attempt": 0 if state == "queued" else 1,
        "max_attempts": 3,
        "lease_token": str(uuid.uuid4()) if state == "running" else None,
        "lease_until": created if state == "running" else None,
        "lease_owner": "before" if state == "running" else None,
        "cancel_requested": False,
        "request": {"kind": "snapshot", "domain": domain},
        "labels": {},
        "intent": None,
        "phases": [{"name": "preflight", "outcome": "ok"}],
        "verdict": "filesystem" if state == "succeeded" else None,
        "verdict_reasons": [],
        "evidence": {"agent": {"version": "7.2"}},
    } | columns


def _in_window(images: Path) -> dict[str, Any]:
    overlay = {
        "target": "vda",
        "base": str(images / "db1-vda.qcow2"),
        "base_format": "qcow2",
        "overlay": str(images / "db1-vda.00000000.qcow2"),
        "virtual_size": 1 << 26,
    }
    intent = {"will_freeze": True, "overlays": [overlay], "window": {"since": BEGAN.isoformat(), "limit_ms": 150_000}}
    domain_id = FakeDomain("db1", []).uuid()
    return _job(0, "interrupted", "db1", id=IN_WINDOW, domain_id=domain_id, phase="freeze", intent=intent)


def _at_work() -> Rows:
    interrupted = [_job(number, "interrupted", f"lost{number}") for number in range(INTERRUPTED - 1)]
    return interrupted + [_job(number, "running", f"busy{number}") for number in range(RUNNING)]


def _waiting() -> Rows:
    """Some behind a job at work, some behind each other, and thaws, which wait for nothing."""
    domains = ("busy0", "lost0", "idle0", "idle0", "idle1")
    rows = [_job(number, "queued", domains[number % len(domains)]) for number in range(QUEUED)]
    for row in rows[::10]:
        row["kind"] = "thaw"
    return rows


def _point(job: dict[str, Any]) -> dict[str, Any]:
    same = {name: job[name] for name in ("kind", "domain_id", "domain_name", "host_id", "created_at", "verdict", "labels")}
    return {"id": str(uuid.uuid4()), "job_id": job["id"], "point_in_time_at": BEGAN, "disks": [], "size_bytes": None, **same}
