"""What may happen to a guest between two backups and during one: the increment shows what the disk shows, or the copy is full."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from service.db.engine import Database
from service.repository.store import Repository
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.backups import BackupScene, are_identical
from tests.live.test_backup import write
from tests.scenes.backups import Steps

pytestmark = pytest.mark.live


@pytest.fixture
def scene(lab: None, sqlite_database: Database, tmp_path: Path) -> Iterator[BackupScene]:
    scene = BackupScene(sqlite_database, tmp_path)
    yield scene
    scene.close()


def kill_qemu(guest: LabGuest) -> None:
    os.kill(int(Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text()), signal.SIGKILL)
    guest.wait_off()


def level_and_truth(scene: BackupScene, guest: LabGuest) -> str:
    """Take a point of the guest when it is off. Its copy must show what the disk shows. Returns the level of the copy."""
    guest.shutdown()
    job = scene.run(guest.name, compare="everything")
    assert job.state == "succeeded", job.error
    assert are_identical(scene.image(job), guest.active_sources()["vda"])
    return scene.levels(job)["vda"]


def test_a_snapshot_between_two_backups(scene: BackupScene, lab_guest: LabGuest) -> None:
    scene.run(lab_guest.name)
    write(lab_guest, "before")
    assert scene.run(lab_guest.name, "snapshot").state == "succeeded"
    write(lab_guest, "after")
    assert level_and_truth(scene, lab_guest) == "bitmap"


def test_a_power_cycle_between_two_backups(scene: BackupScene, lab_guest: LabGuest) -> None:
    scene.run(lab_guest.name)
    write(lab_guest, "before")
    lab_guest.shutdown()
    lab_guest.start_and_wait()
    write(lab_guest, "after")
    assert level_and_truth(scene, lab_guest) == "bitmap"


def test_a_qemu_that_was_killed_between_two_backups(scene: BackupScene, lab_guest: LabGuest) -> None:
    scene.run(lab_guest.name)
    write(lab_guest, "before")
    kill_qemu(lab_guest)
    lab_guest.start_and_wait()
    write(lab_guest, "after")
    job = scene.run(lab_guest.name)
    assert (job.state, scene.levels(job)) == ("succeeded", {"vda": "full"}), job.error
    assert level_and_truth(scene, lab_guest) == "bitmap"


def test_a_qemu_that_is_killed_during_the_copy(scene: BackupScene, lab_guest: LabGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_and_start(_: Repository) -> None:
        write(lab_guest, "during")
        kill_qemu(lab_guest)
        lab_guest.start_and_wait()
        write(lab_guest, "above")

    scene.run(lab_guest.name)
    Steps(monkeypatch).before("copy_disk", kill_and_start)
    job = scene.run(lab_guest.name)
    assert (job.state, lab_guest.active_sources()) == ("succeeded", lab_guest.disks), job.error
    write(lab_guest, "after")
    assert level_and_truth(scene, lab_guest) in ("full", "bitmap")


def test_a_guest_that_reboots_during_the_copy(scene: BackupScene, lab_guest: LabGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    def reboot(_: Repository) -> None:
        write(lab_guest, "during")
        mark = lab_guest.mark()
        lab_guest.agent({"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}, reply=False)
        lab_guest.wait_serial("^LAB ready", 60, since=mark)
        lab_guest.wait_agent()
        write(lab_guest, "above")

    scene.run(lab_guest.name)
    Steps(monkeypatch).before("copy_disk", reboot)
    job = scene.run(lab_guest.name)
    assert (job.state, scene.levels(job), lab_guest.active_sources()) == ("succeeded", {"vda": "bitmap"}, lab_guest.disks), job.error
    assert {"during", "above"} <= set(lab_guest.exec("/bin/ls", "/data").split())
    assert level_and_truth(scene, lab_guest) == "bitmap"


def test_a_disk_that_has_grown_while_the_guest_ran(scene: BackupScene, lab_guest: LabGuest) -> None:
    scene.run(lab_guest.name)
    grown = 160 << 20
    lab_guest.domain.blockResize("vda", grown, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    lab_guest.exec("/bin/sh", "-c", "echo beyond | dd of=/dev/vda bs=1M seek=150 conv=notrunc,fsync 2>/dev/null")
    write(lab_guest, "after")
    job = scene.run(lab_guest.name)
    assert (job.state, scene.levels(job)) == ("succeeded", {"vda": "bitmap"}), job.error
    (disk,) = scene.manifest(job).disks
    assert disk.virtual_size == grown
    assert level_and_truth(scene, lab_guest) == "bitmap"


def test_a_disk_that_is_added_and_taken_away_again_between_backups(scene: BackupScene, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=2))
    guest.define()
    second = next(disk for disk in _disks(guest) if 'dev="vdb"' in disk)
    guest.domain.detachDeviceFlags(second, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    guest.start_and_wait()
    assert scene.levels(scene.run(guest.name)) == {"vda": "full"}

    guest.shutdown()
    guest.domain.attachDeviceFlags(second, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    guest.start_and_wait()
    write(guest, "before")
    added = scene.run(guest.name)
    assert (added.state, scene.levels(added)) == ("succeeded", {"vda": "bitmap", "vdb": "full"}), added.error
    assert len(scene.manifest(added).parents) == 1

    guest.shutdown()
    guest.domain.detachDeviceFlags(second, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    guest.start_and_wait()
    write(guest, "after")
    assert level_and_truth(scene, guest) == "bitmap"
    assert guest.active_sources() == {"vda": guest.disks["vda"]}


def _disks(guest: LabGuest) -> list[str]:
    found = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).findall("devices/disk")
    return [ElementTree.tostring(disk, encoding="unicode") for disk in found]


def test_a_guest_that_writes_and_shuts_down_during_the_copy(
    scene: BackupScene, lab_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_: Repository) -> None:
        write(lab_guest, "during")
        lab_guest.shutdown()

    scene.run(lab_guest.name)
    Steps(monkeypatch).before("copy_disk", end)
    job = scene.run(lab_guest.name)
    assert (job.state, lab_guest.active_sources()) == ("succeeded", lab_guest.disks), job.error
    lab_guest.start_and_wait()
    assert lab_guest.exec("/bin/sh", "-c", "ls /data").split().count("during") == 1
    assert level_and_truth(scene, lab_guest) == "bitmap"
