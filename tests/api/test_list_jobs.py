"""GET /api/v1/jobs: filters, paging that nothing shifts, and a cost that does not grow."""

import re
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import delete, text
from sqlalchemy.dialects import postgresql
from starlette.testclient import TestClient

from service.api.pages import job_page_statement, page_of_jobs, page_of_recovery_points
from service.api.paging import encode_cursor
from service.api.schemas.jobs import JobFilter
from service.api.schemas.recovery_points import RecoveryPointFilter
from service.clock import rfc3339
from service.db.engine import Database, open_engine
from service.db.tables import Job
from tests.api.world import DB1, NOW, WEB1, add_job, change_job

FILTERS: list[dict[str, Any]] = [
    {},
    {"state": "failed"},
    {"kind": "snapshot"},
    {"domain": DB1},
    {"domain": "db1"},
    {"host": "hv1"},
    {"verdict": "crash"},
    {"vss_outcome": "lost"},
    {"writer_failed": True},
    {"writer_failed": False},
    {"writer_failed": True, "vss_outcome": "completed", "since": NOW},
    {"since": NOW},
    {"until": NOW},
    {"label": ["plan:nightly"]},
    {"label": ["plan:nightly", "tier:gold"]},
    {"label": ["plan:nightly"], "state": "failed"},
    {"label": ["plan:nightly"], "writer_failed": True},
    {"state": "failed", "kind": "snapshot", "domain": "db1", "host": "hv1", "verdict": "crash", "since": NOW, "until": NOW},
]
CURSOR = "MjAyNi0wMy0wMVQxMjowMDowMC4wMDAwMDBaCmM3YTVmZGJkLWVkYWYtOTQ1NS05MjZhLWQ2NWMxNmRiMTgwOQ"


def _ids(api: TestClient, **query: Any) -> list[str]:
    answer = api.get("/api/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["items"]]


def test_no_jobs_are_an_empty_page(api_on_both: TestClient) -> None:
    assert api_on_both.get("/api/v1/jobs").json() == {"items": [], "next_cursor": None}


def test_jobs_come_newest_first_and_those_of_one_instant_by_id(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        old = add_job(session, NOW - timedelta(seconds=1))
        same = sorted(add_job(session, NOW) for _ in range(3))
    assert _ids(api_on_both) == [*reversed(same), old]


def test_an_item_is_the_job_without_its_evidence_and_what_vss_did(api_on_both: TestClient, database: Database) -> None:
    alone: dict[str, Any] = {"evidence": {"raw": "…"}, "vss": {"applicable": True, "steps": []}, "auto_recovery": {"mode": "unknown"}}
    with database.write() as session:
        job_id = add_job(session, **alone, vss_outcome="lost", writer_failed=False, error={"code": "x"}, labels={"a": "b"})
    job = api_on_both.get(f"/api/v1/jobs/{job_id}").json()

    assert {name: job.pop(name) for name in alone} == alone
    assert (job["vss_outcome"], job["writer_failed"]) == ("lost", False)
    assert api_on_both.get("/api/v1/jobs").json()["items"] == [job]


def test_every_filter_finds_its_jobs_and_no_others(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        plain = add_job(session, NOW, labels={"plan": "nightly"})
        failed = add_job(session, NOW - timedelta(hours=1), state="failed", labels={"plan": "nightly", "tier": "gold:1"})
        thaw = add_job(session, NOW - timedelta(hours=2), kind="thaw")
        web = add_job(session, NOW - timedelta(hours=3), domain_id=WEB1, domain_name="web1", host_id="hv2", verdict="crash")
    find = api_on_both

    assert _ids(find, state="failed") == [failed]
    assert _ids(find, kind="thaw") == [thaw]
    assert _ids(find, domain="web1") == [web]
    assert _ids(find, domain=WEB1.upper()) == [web]
    assert _ids(find, host="hv2") == [web]
    assert _ids(find, verdict="crash") == [web]
    assert _ids(find, since="2026-03-01T13:00:00+02:00") == [plain, failed]
    assert _ids(find, until="2026-03-01T11:00:00Z") == [thaw, web]
    assert _ids(find, label="plan:nightly") == [plain, failed]
    assert _ids(find, label=["plan:nightly", "tier:gold:1"]) == [failed]
    assert _ids(find, label=["plan:nightly", "plan:weekly"]) == []
    assert _ids(find, label="plan:nightly", state="succeeded") == [plain]
    assert _ids(find, domain="db1", state="succeeded", since="2026-03-01T10:00:00Z", until="2026-03-01T11:00:00Z") == [thaw]


def test_jobs_with_bad_writers_and_lost_holds_are_found(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        failed = add_job(session, NOW, vss_outcome="completed", writer_failed=True)
        well = add_job(session, NOW - timedelta(hours=1), vss_outcome="completed", writer_failed=False)
        lost = add_job(session, NOW - timedelta(hours=2), vss_outcome="hold_writes_timeout", writer_failed=True)
        unreadable = add_job(session, NOW - timedelta(hours=3), vss_outcome="completed")
        add_job(session, NOW - timedelta(hours=4))
    find = api_on_both

    assert _ids(find, writer_failed="true") == [failed, lost]
    assert _ids(find, writer_failed="false") == [well]
    assert _ids(find, vss_outcome="hold_writes_timeout") == [lost]
    assert _ids(find, vss_outcome="completed") == [failed, well, unreadable]
    assert _ids(find, vss_outcome="completed", writer_failed="true") == [failed]
    assert _ids(find, writer_failed="true", until="2026-03-01T11:00:00Z") == [lost]


@pytest.mark.parametrize("query", [{}, {"label": "plan:nightly"}, {"domain": "db1"}, {"writer_failed": "false"}])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_follow_each_other_without_gap_or_repetition(
    api_on_both: TestClient, database: Database, query: dict[str, str], limit: int
) -> None:
    with database.write() as session:
        # Several of one instant, so that the id has to decide inside a page and between pages.
        for n in range(14):
            add_job(session, NOW - timedelta(seconds=n // 4), labels={"plan": "nightly"}, writer_failed=False)
    whole = _ids(api_on_both, **query)

    read: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        page = api_on_both.get("/api/v1/jobs", params={**query, "limit": limit, **({"cursor": cursor} if cursor else {})}).json()
        read += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert len(whole) == 14
    assert read == whole


def test_jobs_that_are_added_while_the_list_is_read_shift_nothing(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        for n in range(6):
            add_job(session, NOW - timedelta(seconds=n))
    before = _ids(api)
    first = api.get("/api/v1/jobs?limit=3").json()
    with sqlite_database.write() as session:
        for n in range(4):
            add_job(session, NOW + timedelta(seconds=n))
    second = api.get(f"/api/v1/jobs?limit=3&cursor={first['next_cursor']}").json()

    assert [job["id"] for job in first["items"] + second["items"]] == before
    assert second["next_cursor"] is None


def test_a_job_that_ends_is_seen_at_once(api_on_both: TestClient, database: Database) -> None:
    """Documents of final jobs are kept in memory; the one that was read while it ran must not be among them."""
    with database.write() as session:
        other = add_job(session, NOW)
        job_id = add_job(session, NOW - timedelta(seconds=1), state="running")
    before = api_on_both.get("/api/v1/jobs").json()["items"]
    with database.write() as session:
        # Even in the same instant.
        change_job(session, job_id, state="succeeded", verdict="filesystem", timing={"hold_ms": 1.5})
    for _ in range(2):
        after = api_on_both.get("/api/v1/jobs").json()["items"]
        one = api_on_both.get(f"/api/v1/jobs/{job_id}").json()

        assert [(job["id"], job["state"], job["verdict"]) for job in before] == [(other, "succeeded", None), (job_id, "running", None)]
        assert [(job["id"], job["state"], job["verdict"]) for job in after] == [
            (other, "succeeded", None),
            (job_id, "succeeded", "filesystem"),
        ]
        assert (one["state"], one["verdict"], one["timing"]) == ("succeeded", "filesystem", {"hold_ms": 1.5})
        assert _ids(api_on_both, state="running") == []
        assert _ids(api_on_both, verdict="filesystem") == [job_id]


def test_a_running_job_is_answered_as_it_is_now(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        job_id = add_job(session, state="running", phase="freeze")
    phases = []
    for phase in ("freeze", "thaw", "evaluate"):
        with database.write() as session:
            change_job(session, job_id, phase=phase)
        phases.append(api_on_both.get("/api/v1/jobs").json()["items"][0]["phase"])
    assert phases == ["freeze", "thaw", "evaluate"]


def test_a_job_that_is_gone_is_not_listed(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        stays, goes = add_job(session, NOW), add_job(session, NOW - timedelta(seconds=1))
    assert _ids(api_on_both) == [stays, goes]
    with database.write() as session:
        session.execute(delete(Job).where(Job.id == goes))
    assert _ids(api_on_both) == [stays]


def test_what_was_read_before_and_what_is_new_stand_in_one_order(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        for n in range(0, 6, 2):
            add_job(session, NOW - timedelta(seconds=n), labels={"n": str(n)})
    _ids(api_on_both)
    with database.write() as session:
        for n in range(1, 6, 2):
            add_job(session, NOW - timedelta(seconds=n), labels={"n": str(n)}, state="failed" if n == 3 else "queued")
    for _ in range(2):
        items = api_on_both.get("/api/v1/jobs").json()["items"]
        assert [job["labels"]["n"] for job in items] == ["0", "1", "2", "3", "4", "5"]
        for job in items:
            whole = api_on_both.get(job["links"]["self"]).json()
            for name in ("vss", "auto_recovery", "evidence"):
                del whole[name]
            assert job == whole


def test_bad_windows_jobs_are_found_by_their_outcome_and_by_their_writers(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        lost = add_job(session, vss_outcome="lost", writer_failed=None)
        failed = add_job(session, vss_outcome="completed", writer_failed=True)
        good = add_job(session, vss_outcome="completed", writer_failed=False)
        add_job(session)
    assert _ids(api_on_both, vss_outcome="lost") == [lost]
    assert sorted(_ids(api_on_both, vss_outcome="completed")) == sorted([failed, good])
    assert _ids(api_on_both, writer_failed="true") == [failed]
    assert _ids(api_on_both, writer_failed="false") == [good]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "state=done",
        "surprise=1",
        "state=failed&state=queued",
        "label=plan",
        "writer_failed=",
        "writer_failed=1",
        "writer_failed=yes",
        "writer_failed=True",
        "writer_failed=null",
        "vss_outcome=bad",
        "since=yesterday",
        "since=2026-03-01T12:00:00",
        "since=1",
        "domain=",
        "domain=%00",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(api: TestClient, query: str) -> None:
    answer = api.get(f"/api/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["facts"]["fields"][0]["field"].startswith("query.")


@pytest.mark.parametrize("cursor", ["", "x", "%00", "bm8", "/" * 40, "MjAyNi0wMy0wMVQxMjowMDowMFoKbm8", CURSOR + CURSOR])
def test_a_cursor_that_was_not_given_out_is_refused(api: TestClient, cursor: str) -> None:
    answer = api.get(f"/api/v1/jobs?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


def test_a_cursor_and_a_time_bound_the_list_together(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        ids = [add_job(session, NOW - timedelta(seconds=n)) for n in range(4)]
    cursor = api.get("/api/v1/jobs?limit=2").json()["next_cursor"]

    assert _ids(api, cursor=cursor, until="2026-03-01T12:00:00Z") == ids[2:]
    assert _ids(api, cursor=cursor, until="2026-03-01T11:59:58Z") == ids[3:]


@pytest.mark.parametrize("cursor", [None, CURSOR])
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_every_page_is_a_range_of_an_index(sqlite_database: Database, wanted: dict[str, Any], cursor: str | None) -> None:
    """No table scan, no sorting: then a page costs the same however many jobs there are."""
    values = JobFilter.model_construct(**{**JobFilter().model_dump(), **wanted, "cursor": cursor})
    plan = _plan(sqlite_database, *page_of_jobs(values))

    assert _growing(plan) == []


@pytest.mark.parametrize("wanted", [{}, {"domain": DB1}, {"domain": "db1"}, {"host": "hv1"}, {"verdict": "crash"}, {"since": NOW}])
def test_every_page_of_recovery_points_is_a_range_of_an_index(sqlite_database: Database, wanted: dict[str, Any]) -> None:
    values = RecoveryPointFilter.model_construct(**{**RecoveryPointFilter().model_dump(), **wanted, "cursor": CURSOR})
    plan = _plan(sqlite_database, *page_of_recovery_points(values))

    assert _growing(plan) == []


def _growing(plan: list[Any]) -> list[str]:
    """The steps whose cost grows with the table: they read it, or sort anything but pages, which a filter by domain merges."""
    reads = [step for step in plan if step[3].startswith(("SCAN", "SEARCH"))]
    tables = [step for step in reads if "anon" not in step[3]]
    sorts = [step for step in plan if "TEMP B-TREE" in step[3] and step[1] in {read[1] for read in tables}]
    return [step[3] for step in (*sorts, *(table for table in tables if "SCAN" in table[3] and " INDEX " not in table[3]))]


def _plan(database: Database, statement: Any, parameters: dict[str, Any]) -> list[Any]:
    sql, values = statement.for_driver(database.engine.dialect, parameters)
    with database.engine.connect() as connection:
        return list(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values))


def test_postgresql_walks_an_index_too(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    fill = """INSERT INTO jobs (id, kind, state, domain_id, domain_name, host_id, created_at, run_after, updated_at, attempt, max_attempts,
        cancel_requested, request, labels, phases, verdict_reasons, vss_outcome, writer_failed)
        SELECT gen_random_uuid()::text, 'snapshot', 'succeeded', md5((n % 100)::text), 'vm' || n % 100, 'hv' || n % 5,
        now() - n * interval '1 second', now(), now(), 1, 3, false, '{}', '{}', '[]', '[]',
        CASE WHEN n % 500 = 0 THEN 'lost' WHEN n % 2 = 0 THEN 'completed' END, CASE WHEN n % 2 = 0 THEN n % 100 = 0 END
        FROM generate_series(1, 20000) n"""
    texts = "INSERT INTO job_documents (job_id, entry, details) SELECT id, '{}', '{}' FROM jobs"
    filters: list[dict[str, Any]] = [{}, {"host": "hv1"}, {"domain": "vm7"}, {"vss_outcome": "lost"}, {"vss_outcome": "completed"}]
    filters += [{"writer_failed": True}, {"writer_failed": False}]
    with engine.begin() as connection:
        connection.execute(text(fill))
        connection.execute(text(texts))
        connection.execute(text("ANALYZE jobs, job_documents"))
        plans = []
        middle = encode_cursor(rfc3339(datetime.now(UTC) - timedelta(seconds=10_000)), DB1)
        for wanted, cursor in product(filters, (None, middle)):
            values = JobFilter.model_construct(**{**JobFilter().model_dump(), **wanted, "cursor": cursor})
            statement, parameters = page_of_jobs(values)
            sql, given = statement.for_driver(engine.dialect, parameters)
            plans.append("\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {sql}", given)))
    engine.dispose()

    for plan in plans:
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan, plan
        assert "Sort  (" not in plan, plan


def test_a_page_says_its_order_where_its_rows_are_joined() -> None:
    """PostgreSQL promises no order of a subquery to an aggregate over it; SQLite knows an order there from 3.44 on."""
    make: Any = postgresql.dialect
    sql, _ = job_page_statement(frozenset(), 0, 3).for_driver(make(), {})
    assert re.search(r"string_agg\([^()]*\(\d+\) ORDER BY \w+\.listed_at DESC, \w+\.listed_id DESC\)", sql), sql
