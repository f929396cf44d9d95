"""A preflight of a Windows guest says what a backup would come to, and what to do about what stands in the way."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from tests.jobs.scene import FREEZE
from tests.jobs.windows_scene import WindowsScene

pytestmark = pytest.mark.windows


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def warnings(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["code"]: check for check in result["checks"] if check["status"] != "pass"}


def test_a_healthy_windows_has_nothing_to_warn_of_and_is_not_frozen(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")

    result = scene.preflight()

    assert (result["would_work"], result["expected_verdict"], warnings(result)) == (True, "application", {})
    assert (result["windows"]["backup_type"], result["windows"]["kernel_version"]) == ("copy", "10.0")
    assert "SqlServerWriter" in {writer["name"] for writer in result["windows"]["writers"]}
    assert FREEZE not in windows.windows.commands


def test_full_with_sql_server_says_how_to_set_copy(scene: WindowsScene) -> None:
    scene.play("full-backup-with-sql")
    warned = warnings(scene.preflight())
    assert "/v VssOption /t REG_DWORD /d 5" in warned["backup_type_full_with_sql_server"]["remedy"]


def test_exchange_gives_up_after_20_s(scene: WindowsScene) -> None:
    scene.play("exchange")
    assert "20 s" in warnings(scene.preflight())["exchange_20_s"]["detail"]


@pytest.mark.parametrize("name", ["exec-blocked", "exec-blocked-new"])
def test_a_blocked_guest_exec_lowers_what_is_expected(scene: WindowsScene, name: str) -> None:
    scene.play(name)
    result = scene.preflight()
    assert (result["would_work"], result["expected_verdict"]) == (True, "application_unverified")
    assert {"agent_exec_blocked", "backup_type_unknown", "writers_unavailable"} == set(warnings(result))


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("server-2012r2", {"backup_type_always_full"}),
        ("server-2008", {"freeze_gives_up_early", "backup_type_always_full", "windows_is_old"}),
        (
            "rhev-agent",
            {"freeze_may_hang", "osinfo_missing", "freeze_gives_up_early", "backup_type_always_full", "windows_version_unknown"},
        ),
    ],
)
def test_an_old_agent_and_an_old_windows_are_named_with_their_faults(scene: WindowsScene, name: str, codes: set[str]) -> None:
    scene.play(name)
    warned = warnings(scene.preflight())
    assert codes == set(warned)
    assert all(check["remedy"] for check in warned.values())


@pytest.mark.parametrize(("name", "code"), [("vss-dead-old", "agent_command_blocked"), ("vss-dead-new", "agent_command_failed")])
def test_a_guest_without_vss_would_not_work(scene: WindowsScene, name: str, code: str) -> None:
    scene.play(name)
    result = scene.preflight()
    assert (result["would_work"], result["expected_verdict"]) == (False, "none")
    assert warnings(result)[code]["status"] == "fail"


def test_a_writer_that_is_broken_already_is_named(scene: WindowsScene) -> None:
    scene.play("writer-failed-before")
    assert "NTDS" in warnings(scene.preflight())["writer_not_healthy"]["detail"]
