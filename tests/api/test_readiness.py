"""Readiness: of an API alone, of one with a worker in its process, and of a worker alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from service.api.worker_pages import WorkerPages
from service.app import create_api
from service.config import Settings
from service.db import writable
from service.db.engine import Database
from service.db.writable import Trial
from service.errors import HostTaken, LibvirtUnavailable, LoopDied, StateFolderUnwritable, StillpointError
from service.records.wake import Wake

Ask = Callable[[StillpointError | None], TestClient]


@pytest.fixture(params=["api with a worker", "worker alone"])
def ask(request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path) -> Ask:
    def of(problem: StillpointError | None) -> TestClient:
        if request.param == "worker alone":
            return TestClient(WorkerPages(Trial(sqlite_database), lambda: problem))
        return TestClient(create_api(Settings(state_dir=tmp_path), sqlite_database, Wake(), lambda: problem))

    return of


def test_all_well_is_ready(ask: Ask) -> None:
    client = ask(None)
    assert {path: client.get(path).json() for path in ("/healthz", "/readyz")} == {
        "/healthz": {"status": "ok"},
        "/readyz": {"status": "ok"},
    }


@pytest.mark.parametrize(
    "problem",
    [
        HostTaken(held_by="hv1:1", host="hv1", seen_ago_s=1, free_in_s=59),
        LibvirtUnavailable(uri="qemu:///system", reason="no socket"),
        LoopDied(thread="worker-claims", reason="MemoryError"),
        StateFolderUnwritable(path="/var/lib/stillpoint", reason="No space left on device"),
    ],
    ids=lambda problem: problem.code,
)
def test_what_keeps_the_worker_from_its_work_is_told(ask: Ask, problem: StillpointError) -> None:
    client = ask(problem)
    answers = [client.get("/readyz") for _ in range(2)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, problem.code)] * 2
    assert client.get("/healthz").status_code == 200


def test_a_database_without_its_identity_is_told(ask: Ask, sqlite_database: Database) -> None:
    with sqlite_database.engine.begin() as connection:
        connection.execute(text("DELETE FROM database_identity"))
    assert ask(None).get("/readyz").json()["code"] == "database_replaced"


def test_however_often_it_is_asked_it_writes_only_so_often(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness needs no token: whoever asks must not be able to wear out the disk."""
    monkeypatch.setattr(writable, "EVERY_SECONDS", 60)
    trial = Trial(sqlite_database)
    trial.check()
    with sqlite_database.engine.begin() as connection:
        connection.execute(text("UPDATE database_identity SET tried_at = NULL"))
    for _ in range(100):
        trial.check()
    with sqlite_database.read() as session:
        assert session.scalar(text("SELECT tried_at FROM database_identity")) is None


def test_another_database_under_the_same_name_is_refused_from_then_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writable, "EVERY_SECONDS", 0)
    trial = Trial(database)
    trial.check()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE database_identity SET id = 'another'"))
    with pytest.raises(StillpointError) as found:
        trial.check()
    assert found.value.code == "database_replaced"
    with pytest.raises(StillpointError) as refused, database.write() as session:
        session.execute(text("SELECT 1"))
    assert refused.value.code == "database_replaced"
