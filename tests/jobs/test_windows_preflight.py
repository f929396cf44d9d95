"""A preflight of a Windows guest says what a backup would come to, and what to do about what stands in the way."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from tests.lab.windows import scenario
from tests.scenes.host import FREEZE
from tests.scenes.windows import WindowsScene

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


@pytest.mark.parametrize(
    ("name", "build", "variant"),
    [("healthy-2022", "20348", "server"), ("healthy-2025", "26100", "server"), ("healthy-windows-11", None, "client")],
)
def test_which_windows_it_is_is_told_by_numbers(scene: WindowsScene, name: str, build: str | None, variant: str) -> None:
    scene.play(name)
    found = scene.preflight()["windows"]
    assert (found["kernel_version"], found["variant"]) == ("10.0", variant)
    assert found["build"].isdigit()
    assert build in (None, found["build"])


def test_what_a_preflight_expects_is_what_the_job_comes_to_where_volumes_are_unknown(scene: WindowsScene) -> None:
    healthy = scenario.load("healthy-2022")
    scene.play(healthy.model_copy(update={"agent": healthy.agent.model_copy(update={"blocked": ("guest-get-fsinfo",)})}))
    assert scene.preflight()["expected_verdict"] == scene.take().verdict == "application_unverified"


@pytest.mark.parametrize("freeze", [{"hold_limit_ms": 10_000}, {"hold_soft_ms": 10_000}])
def test_a_hold_that_windows_cannot_keep_is_said_before_the_job_meets_it(scene: WindowsScene, freeze: dict[str, Any]) -> None:
    scene.play("healthy-2022")
    result = scene.preflight(freeze=freeze)
    assert (result["would_work"], [code for code, check in warnings(result).items() if check["status"] == "fail"]) == (
        False,
        ["hold_limits"],
    )
    assert scene.preflight(freeze={**freeze, "mode": "off"})["would_work"] is True


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
    assert "/etc/" not in str(result["checks"])


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


@pytest.mark.parametrize(
    ("name", "why"),
    [("vss-dead-old", "QEMU 9.0"), ("vss-dead-new", "VSS failed to initialize")],
)
def test_a_guest_without_vss_would_not_work_and_is_told_what_to_do_in_windows(scene: WindowsScene, name: str, why: str) -> None:
    scene.play(name)

    result = scene.preflight()

    assert (result["would_work"], result["expected_verdict"]) == (False, "none")
    dead = warnings(result)["vss_not_usable"]
    assert dead["status"] == "fail"
    assert why in dead["detail"]
    for word in ("sc qc VSS", "QEMU Guest Agent VSS Provider", "qga-vss.dll", "virtio-win-guest-tools.exe", "QEMU-GA"):
        assert word in dead["remedy"]
    assert result["windows"]["variant"] == "server"
    assert "/etc/" not in str(result["checks"])


def test_a_guest_without_vss_may_still_give_a_crash_point(scene: WindowsScene) -> None:
    scene.play("vss-dead-old")
    result = scene.run("preflight", scene.windows, freeze={"mode": "preferred"}).result or {}
    assert (result["would_work"], result["expected_verdict"]) == (True, "crash")
    assert warnings(result)["vss_not_usable"]["status"] == "warn"


def test_a_blocked_freeze_is_no_dead_vss_and_is_mended_in_the_service_of_the_agent(scene: WindowsScene) -> None:
    healthy = scenario.load("healthy-2022")
    scene.play(healthy.model_copy(update={"agent": healthy.agent.model_copy(update={"blocked": ("guest-fsfreeze-freeze",)})}))

    blocked = warnings(scene.preflight())["agent_command_blocked"]

    assert "guest-fsfreeze-freeze" in blocked["detail"]
    assert "sc qc QEMU-GA" in blocked["remedy"]
    assert "/etc/" not in blocked["remedy"]


def test_a_volume_that_vss_may_not_hold_is_named_before_it_costs_the_verdict(scene: WindowsScene) -> None:
    scene.play("volumes-not-frozen")
    assert "E:\\ (FAT32)" in warnings(scene.preflight())["volumes_not_frozen"]["detail"]
    assert scene.take().verdict == "filesystem"


def test_a_writer_that_is_broken_already_is_named(scene: WindowsScene) -> None:
    scene.play("writer-failed-before")
    assert "NTDS" in warnings(scene.preflight())["writer_not_healthy"]["detail"]
