"""Many finished jobs at once, straight into the tables, as the service itself would have left them."""

import json
import multiprocessing
import os
import random
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any

from sqlalchemy import JSON, Connection, Engine, Table, insert, text
from sqlalchemy.schema import CreateIndex, DropIndex

from service.db.base import Base, UtcDateTime
from service.db.engine import open_engine
from service.db.postgresql_limits import BoundedConnection
from service.db.tables import Domain, Host, Job, JobDocument, JobLabel
from service.model.documents import texts_of_job

BATCH = 10_000
DOMAINS = 10
NEWEST = datetime(2026, 1, 31, 22, tzinfo=UTC)
APART = timedelta(minutes=1)
#: One job in so many has it: a page of 50 is there at 1,000 jobs too.
ONE_IN = 10
Row = dict[str, Any]


def fill_all(orders: Sequence[tuple[str, int]]) -> None:
    """`fill` for each (url, jobs), as many at once as there are processors."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for filled in [pool.submit(fill, url, jobs) for url, jobs in orders]:
            filled.result()


def fill(url: str, jobs: int) -> None:
    """A migrated, empty database gets a host, its domains, and `jobs` finished jobs, one a minute."""
    engine = open_engine(url)
    tables = [Base.metadata.tables[table.__tablename__] for table in (Job, JobDocument, JobLabel)]
    _drop_indexes(engine, tables)
    with engine.begin() as connection:
        connection.execute(insert(Host), [_host()])
        connection.execute(insert(Domain), [_domain(number) for number in range(DOMAINS)])
    rows = _jobs(jobs)
    while batch := list(islice(rows, BATCH)):
        _write(engine, "jobs", batch)
        _write(engine, "job_documents", [_document(row) for row in batch])
        _write(engine, "job_labels", [_label(row) for row in batch if row["labels"] != "{}"])
    _create_indexes(engine, tables)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _without_limits(connection)
        connection.execute(text("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"))
    engine.dispose()


def domain_name(number: int) -> str:
    return f"vm{number}"


def _domain_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1, version=4))


def _host() -> Row:
    versions = {"libvirt": "9.0.0", "hypervisor": "QEMU 7.2.22"}
    seen = {"started_at": NEWEST, "last_seen": datetime.now(UTC), "inventory_at": datetime.now(UTC)}
    about = {"version": "0", "libvirt_uri": "qemu:///system", "versions": versions, "libvirt_connected": True, "libvirt_error": None}
    return {"id": "bench", **seen, **about}


def _domain(number: int) -> Row:
    names = {"host_id": "bench", "id": _domain_id(number), "name": domain_name(number)}
    return {**names, "state": "running", "published_at": datetime.now(UTC), "document": {"disks": [], "filesystems": []}}


def _jobs(count: int) -> Iterator[Row]:
    """Oldest first. Values are texts that both databases read."""
    choice = random.Random(count)
    for number in range(count):
        created = NEWEST - APART * (count - number)
        domain = number % DOMAINS
        failed, labelled = choice.randrange(ONE_IN) == 0, choice.randrange(ONE_IN) == 0
        yield {
            **_ALWAYS,
            "id": str(uuid.UUID(int=choice.getrandbits(128), version=4)),
            "kind": "preflight" if choice.randrange(ONE_IN) == 0 else "snapshot",
            "state": "failed" if failed else "succeeded",
            "domain_id": _domain_id(domain),
            "domain_name": domain_name(domain),
            **dict.fromkeys(("created_at", "run_after", "started_at"), created.strftime("%Y-%m-%d %H:%M:%S.000000")),
            **dict.fromkeys(("finished_at", "updated_at"), created.strftime("%Y-%m-%d %H:%M:%S.400000")),
            "labels": '{"plan": "nightly"}' if labelled else "{}",
            "verdict": "crash" if failed else "filesystem",
        }


def _document(row: Row) -> Row:
    """What the service writes with each change of a row."""
    job = Job(**row)
    for name, column in Base.metadata.tables["jobs"].columns.items():
        value = row.get(name)
        if value is not None and isinstance(column.type, JSON):
            setattr(job, name, _parsed(value))
        elif value is not None and isinstance(column.type, UtcDateTime):
            setattr(job, name, datetime.fromisoformat(value).replace(tzinfo=UTC))
    return {"job_id": row["id"], **texts_of_job(job)}


@lru_cache
def _parsed(text: str) -> Any:
    """The same few texts stand in all rows."""
    return json.loads(text)


def _label(row: Row) -> Row:
    return {"key": "plan", "value": "nightly", "created_at": row["created_at"], "job_id": row["id"]}


def _phase(name: str, duration_ms: float) -> Row:
    return {"name": name, "started_at": "2026-01-31T22:00:00.000000Z", "duration_ms": duration_ms, "outcome": "ok", "detail": None}


_FREEZE = {"mode": "required", "timeout_ms": 60000, "hold_limit_ms": 10000, "preflush": True}
_OUTCOME = {
    "mode": "required",
    "outcome": "frozen",
    "filesystems_frozen": 2,
    "message": None,
    "thaw_outcome": "completed",
    "filesystems_thawed": 2,
}
_TIMING = {"freeze_ms": 21.4, "point_in_time_ms": 14.2, "thaw_ms": 4.1, "hold_ms": 15.1, "window_ms": 40.6, "within_limits": True}
_PHASES = [_phase(name, 12.5) for name in ("preflight", "prepare", "freeze", "point_in_time", "thaw", "evaluate")]
_REASON = {"code": "freeze_held", "effect": "lifts", "detail": "2 filesystems were frozen, and the same 2 were thawed."}
_DISK = {"target": "vda", "file": "/var/lib/libvirt/images/vm.qcow2", "format": "qcow2", "virtual_size": 21474836480}
_FILESYSTEMS = [{"mountpoint": mount, "name": mount, "type": "ext4", "targets": ["vda"]} for mount in ("/", "/srv")]
_AGENT = {"version": "7.2.22", "hook": "absent", "os": {"id": "debian", "version-id": "12"}, "blocked": []}

#: The same in every row.
_ALWAYS: Row = {
    "phase": None,
    "host_id": "bench",
    "attempt": 1,
    "max_attempts": 3,
    "lease_token": None,
    "lease_until": None,
    "lease_owner": None,
    "cancel_requested": False,
    "request": json.dumps({"kind": "snapshot", "domain": "vm", "host": None, "disks": None, "freeze": _FREEZE, "required_verdict": None}),
    "intent": None,
    "phases": json.dumps(_PHASES),
    "freeze": json.dumps(_OUTCOME),
    "timing": json.dumps(_TIMING),
    "verdict_reasons": json.dumps([_REASON]),
    "evidence": json.dumps({"agent": _AGENT, "filesystems": _FILESYSTEMS, "switched": {"vda": True}}),
    "result": None,
    "recovery_point": json.dumps({"id": "e2b7c1de-8d5c-4f0a-b3f4-5a0f6f1c9d22", "disks": [_DISK]}),
    "error": None,
    "retry_of": None,
    "token_id": None,
    "idempotency_key": None,
    "idempotency_digest": None,
}


def _write(engine: Engine, table: str, rows: list[Row]) -> None:
    if not rows:
        return
    connection = engine.raw_connection()
    driver: Any = connection.driver_connection
    columns = ", ".join(f'"{name}"' for name in rows[0])  # `freeze` is a keyword of PostgreSQL
    if engine.dialect.name == "postgresql":
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(tuple(row.values()))
        driver.commit()
    else:
        marks = ", ".join("?" for _ in rows[0])
        driver.execute("BEGIN")
        driver.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", (tuple(row.values()) for row in rows))
        driver.execute("COMMIT")
    connection.close()


def _drop_indexes(engine: Engine, tables: list[Table]) -> None:
    """They are made again at the end: that takes a fraction of the time that keeping them would."""
    with engine.begin() as connection:
        for table in tables:
            for index in table.indexes:
                connection.execute(DropIndex(index))


def _create_indexes(engine: Engine, tables: list[Table]) -> None:
    with engine.begin() as connection:
        _without_limits(connection)
        for table in tables:
            for index in table.indexes:
                connection.execute(CreateIndex(index))


def _without_limits(connection: Connection) -> None:
    """An index of a million rows takes longer than the service would wait for."""
    driver = connection.connection.dbapi_connection
    if isinstance(driver, BoundedConnection):
        driver.answer_s = None
        connection.exec_driver_sql("SET statement_timeout = 0")
