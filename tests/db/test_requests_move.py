"""The upgrade that takes the count of follow-ups out of the request of the caller; and the way back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, text

from service.db import schema
from service.db.engine import open_engine

BEFORE = "0009"
ASKED: dict[str, dict[str, Any]] = {
    "first": {"kind": "snapshot", "domain": "db1", "labels": None},
    "second": {"kind": "snapshot", "domain": "db1", "on_shortfall": "retry", "shortfall_try": 2},
}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    opened = open_engine(empty_database_url)
    with schema.alone(opened) as connection:
        command.upgrade(schema.alembic_config(connection), BEFORE)
    yield opened
    opened.dispose()


def requests(engine: Engine, count: str = "0") -> dict[str, tuple[dict[str, Any], int]]:
    with engine.begin() as connection:
        rows = connection.execute(text(f"SELECT id, CAST(request AS TEXT), {count} FROM jobs"))
        return {job: (json.loads(request), number) for job, request, number in rows}


def test_the_count_of_follow_ups_moves_out_of_the_request_and_back(engine: Engine) -> None:
    columns = "id, kind, state, domain_id, domain_name, host_id, created_at, run_after, updated_at, attempt, max_attempts, cancel_requested"
    values = ":id, 'snapshot', 'queued', :id, 'db1', 'hv1', :now, :now, :now, 0, 3, :no, :request, '{}', '[]', '[]'"
    insert = f"INSERT INTO jobs ({columns}, request, labels, phases, verdict_reasons) VALUES ({values})"
    now = "2026-01-31 22:00:00.000000"
    with engine.begin() as connection:
        for job_id, request in ASKED.items():
            connection.execute(text(insert), {"id": job_id, "now": now, "no": False, "request": json.dumps(request)})
    schema.migrate(engine)
    second = {name: value for name, value in ASKED["second"].items() if name != "shortfall_try"}
    assert requests(engine, "shortfall_try") == {"first": (ASKED["first"], 0), "second": (second, 2)}
    with engine.begin() as connection:
        assert set(connection.scalars(text("SELECT request_version FROM jobs"))) == {0}
    with schema.alone(engine) as connection:
        command.downgrade(schema.alembic_config(connection), BEFORE)
    assert requests(engine) == {job: (request, 0) for job, request in ASKED.items()}
