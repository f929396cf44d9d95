"""Which disks of a Linux guest the freeze covered: judged one by one, told in the verdict, and foreseen by preflight."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.fakes.agent import FakeFilesystem
from tests.scenes.host import Scene, error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    """A guest with its filesystem on vda; vdb is as each test makes it."""
    scene = Scene(sqlite_database, tmp_path, disks=("vda", "vdb"))
    scene.domain.agent.filesystems = [FakeFilesystem("/data", "vda", disks=("vda",))]
    return scene


def lowering(job: Job) -> dict[str, str]:
    return {reason["code"]: reason["detail"] for reason in job.verdict_reasons if reason["effect"] == "lowers"}


def foreseen(scene: Scene, **request: Any) -> tuple[bool, str]:
    result = scene.run("preflight", **request).result or {}
    return result["would_work"], result["expected_verdict"]


def mount_elsewhere(scene: Scene) -> None:
    scene.domain.agent.mounted_elsewhere["vdb"] = "ext4"


def open_raw(scene: Scene) -> None:
    scene.domain.agent.open_by["vdb"] = 42
    scene.domain.agent.contents["vdb"] = ""


def make_zfs(scene: Scene) -> None:
    scene.domain.agent.contents["vdb"] = "zfs_member"


def unmount(scene: Scene) -> None:
    scene.domain.agent.contents["vdb"] = "ext4"


def block_programs(scene: Scene) -> None:
    scene.domain.agent.blocked.add("guest-exec")


def mount_fat(scene: Scene) -> None:
    scene.domain.agent.filesystems.append(FakeFilesystem("/data-vdb", "vdb", "vfat", ("vdb",)))


@pytest.mark.parametrize("change", [mount_elsewhere, open_raw, make_zfs, unmount, block_programs, mount_fat])
def test_a_disk_that_no_frozen_filesystem_covers_is_named_and_lowers_the_verdict(scene: Scene, change: object) -> None:
    assert callable(change)
    change(scene)
    assert foreseen(scene, freeze={"mode": "preferred"}) == (True, "crash")
    assert foreseen(scene) == (False, "none")

    job = scene.run(required_verdict="filesystem")

    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert lowering(job)["disk_not_covered"].startswith("vdb: ")


def test_swap_costs_nothing(scene: Scene) -> None:
    scene.domain.agent.swaps = ("vdb",)
    assert foreseen(scene) == (True, "filesystem")
    assert scene.run().verdict == "filesystem"


def test_an_empty_disk_costs_nothing(scene: Scene) -> None:
    assert foreseen(scene) == (True, "filesystem")
    assert scene.run().verdict == "filesystem"


def test_a_boot_partition_of_a_covered_disk_costs_nothing_and_other_fat_does(scene: Scene) -> None:
    scene.domain.agent.filesystems.append(FakeFilesystem("/boot/efi", "vda15", "vfat", ("vda",)))
    assert scene.run().verdict == "filesystem"
    scene.domain.agent.filesystems.append(FakeFilesystem("/media/usb", "vda3", "vfat", ("vda",)))
    job = scene.run(required_verdict="crash")
    assert (job.verdict, list(lowering(job))) == ("crash", ["filesystems_not_held"])


def test_a_disk_that_the_job_does_not_take_costs_nothing_when_nothing_is_mounted_on_it(scene: Scene) -> None:
    open_raw(scene)
    assert scene.run(disks=["vda"]).verdict == "filesystem"


def test_data_on_a_disk_that_cannot_take_part_is_a_reason(scene: Scene) -> None:
    network = scene.disk("vdb", type="network")
    scene.replace([scene.disk("vda"), network])
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert "vdb" in lowering(job)["mounted_data_left_out"]


def test_data_on_a_disk_that_the_caller_left_out_is_only_told(scene: Scene) -> None:
    scene.replace([scene.disk("vda"), scene.disk("vdb")])
    job = scene.run(disks=["vda"])
    (reason,) = [reason for reason in job.verdict_reasons if reason["code"] == "mounted_data_left_out"]
    assert (reason["effect"], "vdb" in reason["detail"]) == ("notes", True)
