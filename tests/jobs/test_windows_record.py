"""What a Windows job writes down: the ten steps, the writers, auto-recovery, the backup type, what changed since the last job."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import DatabaseUnavailable
from service.freeze.windows_evidence import EXEC_BLOCKED
from service.model.windows.well_known_writers import SQL_SERVER, writer_class
from service.records import guest_memory
from service.records.guest_memory import NOT_USABLE, USABLE
from tests.lab.windows import scenario
from tests.lab.windows.scenario import Registry, Scenario
from tests.scenes.windows import WindowsScene, reasons_of, vss_of

pytestmark = pytest.mark.windows


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def observations(job: Job) -> list[str]:
    return [step["observation"] for step in vss_of(job)["steps"]]


def writer(job: Job, name: str) -> dict[str, Any]:
    (found,) = [entry for entry in vss_of(job)["writers"] if entry["name"] == name]
    return dict(found)


# --- steps ----------------------------------------------------------------------------------------


def test_ten_rows_with_what_was_seen_and_only_the_hold_has_a_duration(scene: WindowsScene) -> None:
    scene.play("healthy-2022")

    job = scene.take()

    steps = vss_of(job)["steps"]
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert observations(job) == [
        *("observed", "inferred", "inferred", "inferred", "observed", "observed", "inferred", "inferred"),
        *("did_not_happen", "did_not_happen"),
    ]
    assert [step["step"] for step in steps if step["duration_ms"] is not None] == [6]
    assert steps[5]["duration_ms"] == (job.timing or {})["hold_ms"]
    assert {step["step"]: step["limit_ms"] for step in steps if step["limit_ms"]} == {5: 60_000.0, 6: 10_000.0}
    assert [step["step"] for step in steps if step["started_at"]] == [1, 6, 7]


def test_a_refused_freeze_shows_the_step_that_failed_and_none_after_it(scene: WindowsScene) -> None:
    scene.play("heavy-io")

    seen = observations(scene.take())

    assert seen[4] == "observed"
    assert seen[5:8] == ["did_not_happen"] * 3
    assert seen[8] == "observed"


def test_a_hold_that_was_lost_has_no_duration_and_was_given_up(scene: WindowsScene) -> None:
    scene.play("hold-lost")

    job = scene.take()

    assert vss_of(job)["steps"][5]["duration_ms"] is None
    assert observations(job)[8] == "observed"
    assert vss_of(job)["outcome"] == "hold_writes_timeout"


def test_exchange_shortens_the_limit_from_freeze_to_thaw(scene: WindowsScene) -> None:
    scene.play("exchange")

    job = scene.take()

    assert vss_of(job)["steps"][4]["limit_ms"] == 20_000.0
    assert (job.timing or {})["limits"]["freeze_to_thaw_ms"] == 20_000.0


# --- writers --------------------------------------------------------------------------------------


def test_the_failed_writer_stands_there_before_and_after(scene: WindowsScene) -> None:
    scene.play("sql-writer-failed")

    job = scene.take()

    failed = writer(job, "SqlServerWriter")
    assert (failed["before"]["state"], failed["before"]["failed"]) == (1, False)
    assert (failed["after"]["state"], failed["after"]["error"], failed["after"]["failed"]) == (9, "timed_out", True)
    assert (failed["change"], failed["newly_failed"]) == ("newly_failed", True)
    assert [entry["name"] for entry in vss_of(job)["writers"] if entry["newly_failed"]] == ["SqlServerWriter"]
    assert (vss_of(job)["writers_source"], vss_of(job)["writers_unavailable_reason"]) == ("vssadmin", None)


def test_both_lists_are_kept_as_the_guest_printed_them(scene: WindowsScene) -> None:
    scene.play("german-retryable")

    found = scene.texts_of(scene.take())

    assert "SqlServerWriter" in found["writers_before"]["raw_text"]
    assert "SqlServerWriter" in found["writers_after"]["raw_text"]
    assert found["writers_before"]["raw_base64"] != found["writers_after"]["raw_base64"]


def test_garbage_is_kept_beside_the_reason_why_no_writer_is_known(scene: WindowsScene) -> None:
    scene.play("vssadmin-garbage-after")

    job = scene.take()

    assert scene.texts_of(job)["writers_after"]["raw_text"]
    assert (vss_of(job)["writers_source"], vss_of(job)["writers_unavailable_reason"]) == (None, "unparsable")


def test_a_blocked_guest_exec_is_the_reason_that_is_recorded(scene: WindowsScene) -> None:
    scene.play("exec-blocked")

    job = scene.take()

    assert vss_of(job)["writers_unavailable_reason"] == EXEC_BLOCKED
    assert {phase["name"]: phase["outcome"] for phase in job.phases if phase["name"].startswith("writers")} == {
        "writers_before": "warning",
        "writers_after": "warning",
    }


# --- auto-recovery, backup type, drift --------------------------------------------------------------


def test_who_restores_is_told_what_sql_server_will_do(scene: WindowsScene) -> None:
    scene.play("healthy-2022")

    recovery = scene.take().auto_recovery or {}

    assert (recovery["mode"], recovery["source"]) == ("disabled_by_requester", "derived")
    assert recovery["on_restore"] == "recovery_required_at_first_start"
    notes = {entry["name"]: entry["on_restore"] for entry in recovery["writers"]}
    assert notes["SqlServerWriter"] == writer_class(SQL_SERVER).restore_note


def test_a_point_without_freeze_has_no_vss_and_no_known_recovery(scene: WindowsScene) -> None:
    scene.play("healthy-2022")

    job = scene.take(freeze={"mode": "off"})

    assert (job.vss, job.vss_outcome, job.verdict) == ({"applicable": False}, None, "crash")
    assert (job.auto_recovery or {})["mode"] == "unknown"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("healthy-2022", "copy"),
        ("full-backup-with-sql", "full"),
        ("vss-option-absent", "full"),
        ("vss-option-garbage", "full"),
        ("server-2012r2", "full"),
        ("exec-blocked", "unknown"),
    ],
)
def test_the_backup_type_is_the_registrys_and_full_only_where_that_is_known(scene: WindowsScene, name: str, kind: str) -> None:
    scene.play(name)
    assert vss_of(scene.take())["backup_type"] == kind


def test_a_vss_option_that_was_reset_is_told_once_with_before_after_and_since(scene: WindowsScene) -> None:
    copy = scenario.load("healthy-2022")
    scene.play(copy)
    first = scene.take()
    scene.play(copy.model_copy(update={"registry": Registry(vss_option=1)}))

    second, third = scene.take(), scene.take()

    assert vss_of(first)["drift"] == []
    (change,) = vss_of(second)["drift"]
    assert (change["fact"], change["before"], change["after"]) == ("vss_option", 5, 1)
    assert change["before_since"] <= change["last_seen_before"] <= change["since"]
    assert change["remedy"]
    assert (vss_of(second)["backup_type"], vss_of(third)["drift"]) == ("full", [])


def test_a_preflight_warns_of_what_changed_since_the_last_job(scene: WindowsScene) -> None:
    copy = scenario.load("healthy-2022")
    scene.play(copy)
    scene.take()
    scene.play(copy.model_copy(update={"agent": copy.agent.model_copy(update={"version": "108.0.2"})}))

    result = scene.preflight()

    (change,) = result["windows"]["drift"]
    assert (change["fact"], change["before"], change["after"]) == ("agent_version", "107.0.1", "108.0.2")
    assert change["code"] in [check["code"] for check in result["checks"] if check["status"] == "warn"]


def test_a_vss_that_died_since_the_last_job_is_a_change_and_a_blocked_freeze_is_none_of_it(scene: WindowsScene) -> None:
    healthy = scenario.load("healthy-2022")
    scene.play(healthy)
    scene.take()
    scene.play(healthy.model_copy(update={"agent": healthy.agent.model_copy(update={"blocked": ("guest-fsfreeze-freeze",)})}))
    blocked = scene.preflight()["windows"]["drift"]
    scene.play("vss-dead-old")
    dead = scene.preflight()["windows"]["drift"]

    assert [change["fact"] for change in blocked] == ["blocked_commands"]
    (change,) = [change for change in dead if change["fact"] == "vss_provider"]
    assert (change["before"], change["after"]) == (USABLE, NOT_USABLE)


def with_writers(*names: str) -> Scenario:
    return scenario.load("healthy-2022", {"writers": [{"name": name} for name in names]})


def test_a_writer_that_an_earlier_job_saw_and_that_is_in_neither_list_is_drift_and_costs_application(scene: WindowsScene) -> None:
    scene.play(with_writers("SqlServerWriter", "NTDS"))
    first = scene.take()
    scene.play(with_writers("SqlServerWriter"))
    second, third = scene.take(), scene.take()
    scene.play(with_writers("SqlServerWriter", "NTDS"))
    again = scene.take()

    assert [job.verdict for job in (first, second, third, again)] == ["application", *["application_unverified"] * 2, "application"]
    for job in (second, third):
        assert ("writer_missing" in reasons_of(job), "writers_healthy" in reasons_of(job)) == (True, False)
        (change,) = vss_of(job)["drift"]
        assert (change["code"], change["fact"], change["before"], change["after"]) == ("writer_missing", "writers", "NTDS", "absent")


def test_a_preflight_warns_of_a_writer_that_is_missing_and_expects_what_the_job_comes_to(scene: WindowsScene) -> None:
    scene.play(with_writers("SqlServerWriter", "NTDS"))
    scene.preflight()
    scene.play(with_writers("SqlServerWriter"))

    result = scene.preflight()

    assert "writer_missing" in [check["code"] for check in result["checks"] if check["status"] == "warn"]
    assert result["expected_verdict"] == scene.take().verdict == "application_unverified"


@pytest.mark.parametrize("state", [{"state": 7, "last_error": "retryable"}, {"state": 1, "last_error": "timed_out"}])
def test_a_preflight_expects_no_application_where_a_writer_has_failed_already(scene: WindowsScene, state: dict[str, Any]) -> None:
    writers = [{"name": "Microsoft Exchange Writer", "before": state, "after": [state]}]
    scene.play(scenario.load("healthy-2022", {"writers": writers}))

    expected = scene.preflight()["expected_verdict"]
    job = scene.take()

    assert expected == job.verdict == "application_unverified"
    assert "writer_failure_pre_existing" in reasons_of(job)
    assert "writers_healthy" not in reasons_of(job)


def test_a_database_that_is_away_for_a_moment_does_not_fail_the_job(scene: WindowsScene, monkeypatch: pytest.MonkeyPatch) -> None:
    remember, calls = guest_memory.remember, []

    def away_at_first(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise DatabaseUnavailable(reason="it was restarted")
        return remember(*arguments)

    monkeypatch.setattr(guest_memory, "remember", away_at_first)
    scene.play("healthy-2022")
    job = scene.take()
    assert (job.state, len(calls)) == ("succeeded", 2)
