"""The upgrade that gives raw texts a table of their own, on a database with jobs in it; and the way back."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, text

from service.db import schema
from service.db.engine import open_engine

BEFORE, AFTER = "0007", "0008"
JOBS = 450
"""More than two batches."""
FACTS = {"survey": {"agent": {"exec_enabled": True}}, "window": {"thaw": {"message": 'a "quoted" ü \\'}}, "left_out": {}}
TEXTS = {"writers_before": None, "writers_after": {"raw_text": 'Nutzungsname: "ü"\r\n\x00{} \U0001f600', "raw_base64": "AAAA"}}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    opened = open_engine(empty_database_url)
    with schema.alone(opened) as connection:
        command.upgrade(schema.alembic_config(connection), BEFORE)
    yield opened
    opened.dispose()


def test_raw_texts_move_out_of_all_jobs_and_back_without_a_change(engine: Engine) -> None:
    kinds = ({**FACTS, "windows": TEXTS}, {**FACTS, "windows": None}, FACTS, None, {"survey": {"hook": '"windows": {'}})
    evidence = {str(uuid4()): kinds[n % len(kinds)] for n in range(JOBS)}
    with engine.begin() as connection:
        _add_jobs(connection, evidence)
        before = _evidence(connection)

    schema.migrate(engine)
    with engine.begin() as connection:
        facts, texts = _evidence(connection), _texts(connection)
    of_windows = {job for job, document in evidence.items() if document and document.get("windows")}
    assert set(texts) == of_windows
    assert all(document == TEXTS for document in texts.values())
    assert facts == {job: FACTS if job in of_windows else document for job, document in evidence.items()}

    with schema.alone(engine) as connection:
        command.downgrade(schema.alembic_config(connection), BEFORE)
    with engine.begin() as connection:
        assert _evidence(connection) == before == evidence


def _add_jobs(connection: Connection, evidence: dict[str, Any]) -> None:
    columns = (
        "id, kind, state, domain_id, domain_name, host_id, created_at, run_after, updated_at, attempt, max_attempts, cancel_requested,"
        " request, labels, phases, verdict_reasons, evidence"
    )
    values = ":id, 'snapshot', 'succeeded', 'd', 'win', 'hv1', :now, :now, :now, 2, 3, :no, '{}', '{}', '[]', '[]', :evidence"
    rows = [
        {"id": job, "now": "2026-01-31 22:00:00.000000", "no": False, "evidence": json.dumps(document) if document else None}
        for job, document in evidence.items()
    ]
    connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"), rows)


def _evidence(connection: Connection) -> dict[str, Any]:
    rows = connection.execute(text("SELECT id, CAST(evidence AS TEXT) FROM jobs"))
    return {job: json.loads(document) if document else None for job, document in rows}


def _texts(connection: Connection) -> dict[str, Any]:
    rows = connection.execute(text("SELECT job_id, attempt, name, created_at, CAST(document AS TEXT) AS document FROM evidence")).all()
    assert {(row.attempt, row.name, str(row.created_at)[:19]) for row in rows} == {(2, "windows", "2026-01-31 22:00:00")}
    return {row.job_id: json.loads(row.document) for row in rows}
