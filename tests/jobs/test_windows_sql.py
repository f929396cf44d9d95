"""SQL Server's events outweigh its failed writer only where every instance and database that should be among them is."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.lab.windows import scenario
from tests.lab.windows.scenario import Scenario
from tests.scenes.windows import WindowsScene, reasons_of, vss_of

pytestmark = pytest.mark.windows

ALL = ["master", "model", "msdb", "crm"]
FAILED_AFTER = [{"name": "SqlServerWriter", "after": [{"state": 10, "last_error": "timed_out"}]}]


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def failed_after_a_good_freeze(**changes: Any) -> Scenario:
    """SqlServerWriter is `[10]`, timed out, after a freeze of which SQL Server says what `changes` say."""
    return scenario.load("healthy-2022", {"writers": FAILED_AFTER, **changes})


def sql_of(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = vss_of(job)["sql_server"]
    return found


OUTWEIGHED: dict[str, dict[str, Any]] = {
    "the default instance": {"databases": ALL},
    "a named instance": {"instance": "MSSQL$CRM", "databases": ALL},
    "system databases alone": {"databases": ALL[:3]},
    "two instances": {"databases": ALL, "more": [{"instance": "MSSQL$CRM", "databases": ALL}]},
    "an instance that is stopped": {"databases": ALL, "more": [{"instance": "MSSQL$OLD", "databases": ALL, "stopped": True}]},
    "names in many letters": {"databases": [*ALL, "Rechnungen für Ämter", "a+b", "(x)"]},
}

PROVES_NOTHING: dict[str, tuple[dict[str, Any], str]] = {
    "model alone": ({"databases": ["model"]}, "incomplete"),
    "user databases alone": ({"databases": ["crm"]}, "incomplete"),
    "another program": ({"instance": "Acme Sync Service", "databases": ALL}, "no_events"),
    "another program beside a silent SQL Server": (
        {"instance": "Acme Sync Service", "databases": ALL, "more": [{"instance": "MSSQLSERVER", "silent": ALL}]},
        "no_events",
    ),
    "Windows' internal database": ({"instance": "MSSQL$MICROSOFT##WID", "databases": ALL}, "no_events"),
    "a silent database": ({"databases": ALL, "silent": ["ledger"]}, "incomplete"),
    "a silent instance": ({"databases": ALL, "more": [{"instance": "MSSQL$CRM", "silent": ALL}]}, "incomplete"),
    "half an instance": ({"databases": ALL, "more": [{"instance": "MSSQL$CRM", "databases": ["model"]}]}, "incomplete"),
    "nobody may log in": ({"databases": ALL, "may_log_in": False}, "not_known"),
    "not resumed": ({"databases": ALL, "says_resumed": False}, "unbalanced"),
    "of another backup": ({"databases": ALL, "old_pairs": 2, "says_frozen": False, "says_resumed": False}, "no_events"),
}


@pytest.mark.parametrize("sql", OUTWEIGHED.values(), ids=OUTWEIGHED.keys())
def test_events_of_all_that_should_be_there_outweigh_the_failed_writer(scene: WindowsScene, sql: dict[str, Any]) -> None:
    scene.play(failed_after_a_good_freeze(sql=sql))
    job = scene.take()
    assert (job.verdict, sql_of(job)["problem"]) == ("application", None)
    assert {"writer_failure_outweighed", "sql_server_events"} <= set(reasons_of(job))
    assert "writers_healthy" not in reasons_of(job)


@pytest.mark.parametrize(("sql", "problem"), PROVES_NOTHING.values(), ids=PROVES_NOTHING.keys())
def test_events_of_less_leave_the_filesystem(scene: WindowsScene, sql: dict[str, Any], problem: str) -> None:
    scene.play(failed_after_a_good_freeze(sql=sql))
    job = scene.take()
    assert (job.verdict, sql_of(job)["problem"]) == ("filesystem", problem)
    assert "writer_newly_failed" in reasons_of(job)


@pytest.mark.parametrize("exit_code", [0, 1, 5], ids=["no instance is listed", "no such key", "access denied"])
def test_instances_that_cannot_be_listed_are_not_guessed_from_the_events(scene: WindowsScene, exit_code: int) -> None:
    silent = {"name": "reg", "arguments": ["Instance Names"], "exit_code": exit_code}
    scene.play(failed_after_a_good_freeze(sql={"databases": ALL}, programs=[silent]))
    job = scene.take()
    assert (job.verdict, sql_of(job)["problem"]) == ("filesystem", "not_known")


# --- more events than one reading gives -----------------------------------------------------------

SYSTEM, USER = ALL[:3], [f"db{number:03d}" for number in range(429)]


@pytest.mark.parametrize("databases", [USER[:129], USER[:128], [*SYSTEM, *USER[:129]], [*SYSTEM, *USER]], ids=len)
def test_as_many_databases_as_there_are_are_read(scene: WindowsScene, databases: list[str]) -> None:
    scene.play(scenario.load("healthy-2022", {"sql": {"databases": databases}}))
    sql = sql_of(scene.take())
    assert (len(sql["events"]), set(sql["databases"])) == (2 * len(databases), set(databases))
    assert sql["problem"] == (None if databases[0] == "master" else "incomplete")


def test_many_databases_outweigh_a_failed_writer_as_few_do(scene: WindowsScene) -> None:
    scene.play(failed_after_a_good_freeze(sql={"databases": [*SYSTEM, *USER[:129]]}))
    assert scene.take().verdict == "application"


def test_events_that_the_agent_cuts_off_are_read_on(scene: WindowsScene) -> None:
    scene.play(failed_after_a_good_freeze(sql={"databases": [*SYSTEM, *USER[:129]]}, eventlog={"cut_at_bytes": 40_000}))
    job = scene.take()
    assert (job.verdict, len(sql_of(job)["events"])) == ("application", 264)


def test_events_that_cannot_all_be_read_are_called_so_and_not_unbalanced(scene: WindowsScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.freeze.sql_server.MAX_PAGES", 1)
    scene.play(failed_after_a_good_freeze(sql={"databases": [*SYSTEM, *USER[:129]]}))
    job = scene.take()
    assert (job.verdict, sql_of(job)["problem"], len(sql_of(job)["events"])) == ("filesystem", "unreadable", 256)


def test_a_resumption_that_is_written_late_is_waited_for(scene: WindowsScene) -> None:
    scene.play(failed_after_a_good_freeze(sql={"databases": ALL}, eventlog={"resumed_after_readings": 2}))
    assert scene.take().verdict == "application"
