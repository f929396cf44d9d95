"""Which volumes and disks of a Windows guest were held: by what each of them is, and never by equal numbers."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from tests.lab.windows import scenario
from tests.scenes.windows import WindowsScene

pytestmark = pytest.mark.windows

SYSTEM = {"guid": "5f0a3c1e-0000-0000-0000-100000000000", "mountpoint": "C:\\"}
RESERVED = {"guid": "5f0a3c1e-0000-0000-0000-500600000000"}
EFI = {"guid": "5f0a3c1e-0000-0000-0000-700600000000", "type": "FAT32"}


def data(**changes: Any) -> dict[str, Any]:
    return {"guid": "7c1d0b52-0000-0000-0000-100000000000", "mountpoint": "E:\\", "disks": (1,), **changes}


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def play(scene: WindowsScene, *volumes: dict[str, Any], **changes: Any) -> None:
    scene.play(scenario.load("healthy-2022", {"storage": {"volumes": volumes, **changes.pop("storage", {})}, **changes}))


@pytest.mark.parametrize("kind", ["ZFS", "RAW"])
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("powershell", [True, False])
def test_a_volume_of_a_type_that_vss_does_not_hold_is_named(scene: WindowsScene, kind: str, fixed: bool, powershell: bool) -> None:
    play(scene, SYSTEM, RESERVED, data(type=kind, fixed=fixed), storage={"powershell": powershell})
    assert scene.preflight()["expected_verdict"] == "filesystem"
    job = scene.take()
    details = {reason["code"]: reason["detail"] for reason in job.verdict_reasons}
    assert job.verdict == "filesystem"
    assert f"E:\\ ({kind}) on vdb" in details["volumes_not_frozen"]
    assert details["disk_not_covered"].startswith("vdb: ")


def test_a_removable_volume_is_named_though_as_many_were_frozen_as_are_listed(scene: WindowsScene) -> None:
    play(scene, SYSTEM, RESERVED, data(fixed=False), freeze=[{"count": 3}])
    assert scene.preflight()["expected_verdict"] == "filesystem"
    job = scene.take()
    assert job.verdict == "filesystem"
    assert any(reason["code"] == "volumes_not_frozen" and "E:\\" in reason["detail"] for reason in job.verdict_reasons)


def test_a_disk_without_a_listed_volume_is_named(scene: WindowsScene) -> None:
    play(scene, SYSTEM, RESERVED)
    assert scene.preflight()["expected_verdict"] == "filesystem"
    job = scene.take()
    assert job.verdict == "filesystem"
    assert any(reason["code"] == "disk_not_covered" and reason["detail"].startswith("vdb: ") for reason in job.verdict_reasons)


@pytest.mark.parametrize("powershell", [True, False])
def test_fixed_volumes_on_every_disk_give_application(scene: WindowsScene, powershell: bool) -> None:
    play(scene, SYSTEM, EFI, data(), storage={"powershell": powershell})
    assert {check["code"]: check["status"] for check in scene.preflight()["checks"]}["volumes"] == "pass"
    assert scene.take().verdict == "application"


@pytest.mark.parametrize(
    ("kind", "value", "backup_type"),
    [
        ("REG_DWORD", 5, "copy"),
        ("REG_BINARY", "05000000", "copy"),
        ("REG_BINARY", "0500", "full"),
        ("REG_SZ", "5", "full"),
        ("REG_QWORD", 5, "full"),
    ],
)
def test_the_backup_type_is_read_in_the_types_that_the_agent_takes(scene: WindowsScene, kind: str, value: Any, backup_type: str) -> None:
    scene.play(scenario.load("healthy-2022", {"registry": {"vss_option": value, "value_type": kind}}))
    assert (scene.take().vss or {})["backup_type"] == backup_type
