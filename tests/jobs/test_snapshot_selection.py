"""Which disks a snapshot takes, which it names and leaves out, and which filesystems are frozen for them."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.model.inventory import READ_ONLY
from service.model.scope import NOT_NAMED
from tests.fakes import FakeDisk, FakeDomain, FakeFilesystem
from tests.scenes.host import Scene


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


@pytest.fixture
def two_disks(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def test_disks_that_cannot_take_part_are_named_with_the_reason(scene: Scene) -> None:
    scene.replace(
        [
            scene.disk("vda"),
            scene.disk("vdb", read_only=True),
            scene.disk("vdc", format="vmdk"),
            FakeDisk("sda", "/dev/sg0", format="raw", device="lun", type="block"),
            FakeDisk("vdd", "pool/image", format="raw", type="network"),
            FakeDisk("vde", "/dev/loop99", format="raw", type="block"),
            FakeDisk("hda", None, device="cdrom", read_only=True),
        ]
    )
    job = scene.run()
    assert job.state == "succeeded"
    assert job.evidence is not None
    assert set(job.evidence["left_out"]) == {"vdb", "vdc", "sda", "vdd", "vde", "hda"}
    assert job.evidence["left_out"]["vdb"] == READ_ONLY
    assert "cdrom" in job.evidence["left_out"]["hda"]
    assert "STILLPOINT_OVERLAY_DIR" in job.evidence["left_out"]["vde"]
    assert scene.domain.points[0].targets == ("vda",)


def test_some_disks_of_a_domain_freeze_only_their_filesystems(two_disks: Scene) -> None:
    job = two_disks.run(disks=["vdb"])
    assert job.verdict == "filesystem"
    assert two_disks.domain.points[0].frozen == {"vdb"}
    assert job.freeze is not None
    assert job.freeze["mountpoints"] == ["/data-vdb"]
    assert two_disks.sources() == {"vda": "db1-vda.qcow2", "vdb": f"db1-vdb.{job.id[:8]}.qcow2"}
    assert job.evidence is not None
    assert job.evidence["left_out"] == {"vda": NOT_NAMED}


def test_a_filesystem_over_two_disks_is_frozen_for_either(two_disks: Scene) -> None:
    agent = two_disks.domain.agent
    agent.filesystems = [FakeFilesystem("/", "vda1", "ext4", ("vda",)), FakeFilesystem("/srv", "dm-0", "xfs", ("vda", "vdb"))]
    two_disks.run(disks=["vdb"])
    assert two_disks.domain.points[0].frozen == {"dm-0"}


def test_a_subset_is_never_frozen_where_a_filesystem_lies_on_disks_that_are_not_known(two_disks: Scene) -> None:
    two_disks.domain.agent.filesystems.append(FakeFilesystem("/mystery", "dm-7", "ext4", ()))
    two_disks.run(disks=["vdb"])
    assert two_disks.domain.points[0].frozen == {"vda", "vdb", "dm-7"}


def test_an_agent_that_takes_no_list_freezes_everything(two_disks: Scene) -> None:
    two_disks.domain.agent.blocked.add("guest-fsfreeze-freeze-list")
    assert two_disks.run(disks=["vdb"]).verdict == "filesystem"
    assert two_disks.domain.points[0].frozen == {"vda", "vdb"}


def test_a_block_device_takes_part_when_its_overlay_has_a_folder(sqlite_database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "overlays"
    folder.mkdir()
    scene = Scene(sqlite_database, tmp_path, overlay_dir=folder)
    device = scene.images / "device"
    device.touch()
    scene.replace([FakeDisk("vda", device, format="raw", type="block")])
    job = scene.run()
    assert job.state == "succeeded"
    assert scene.sources() == {"vda": f"device.{job.id[:8]}.qcow2"}
    assert [path.name for path in folder.iterdir()] == [f"device.{job.id[:8]}.qcow2"]


def test_a_transient_domain_is_taken_too(scene: Scene) -> None:
    scene.domain.persistent = False
    assert scene.run().verdict == "filesystem"


def test_two_domains_do_not_share_a_job_or_a_file(scene: Scene) -> None:
    other: FakeDomain = scene.add("db2")
    assert scene.run().state == scene.run(domain=other).state == "succeeded"
    assert [len(domain.points) for domain in scene.host.domains] == [1, 1]
