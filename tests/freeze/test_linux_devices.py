"""What the shell of a Linux guest prints about its block devices, and what follows for the disks under them."""

import pytest

from service.freeze.linux_devices import parse_contents, parse_devices
from service.model.block_devices import Content, GuestDevices
from service.model.disk_coverage import filesystems_of, uncovered_disks, with_disks
from service.model.inventory import AgentFacts, Disk, DomainState, Survey

DISKS = [Disk(name, "disk", "file", f"/images/{name}", "qcow2", read_only=False, serial=f"serial-{name}") for name in ("vda", "vdb")]
ROOT = "30 1 253:1 / / rw,relatime - ext4 /dev/vda1 rw"
HEAD = "@devices\nvda|253:0|||serial-vda\nvda1|253:1|vda||\nvdb|253:16|||serial-vdb\n"


def read(devices: str = "", mounts: str = "", *, btrfs: str = "", live: str = "", swaps: str = "", elsewhere: str = "") -> GuestDevices:
    text = f"{HEAD}{devices}@btrfs\n{btrfs}@live\n{live}@swaps\n{swaps}@mounts\n{ROOT}\n{mounts}@elsewhere\n{elsewhere}@open\n"
    found = parse_devices(text, DISKS, {})
    assert found is not None
    return found


def named(devices: GuestDevices) -> dict[str, str]:
    """The disks that are not covered, when the agent lists what is mounted where it runs."""
    survey = Survey("db1", DomainState.running, DISKS, AgentFacts(channel=True), filesystems=with_disks(filesystems_of(devices), devices))
    survey.devices = devices
    return {disk.target: disk.why for disk in uncovered_disks(survey, DISKS)}


LVM = "dm-0|252:0||vdb|\n"
STACKED = "vdb1|253:17|vdb||\nmd0|9:0||vdb1|\ndm-0|252:0||md0|\ndm-1|252:1||dm-0|\n"
ON_DM = "31 1 {} / /data rw,relatime - xfs /dev/mapper/data rw\n"


@pytest.mark.parametrize(
    ("devices", "mounts", "btrfs"),
    [
        (LVM, ON_DM.format("252:0"), ""),
        (STACKED, ON_DM.format("252:1"), ""),
        ("vdb1|253:17|vdb||\n", "31 1 253:17 / /data rw - ext4 /dev/vdb1 rw\n", ""),
        ("", "31 1 253:16 / /data ro - vfat /dev/vdb ro\n", ""),
        ("", "", "f00d vda1\nf00d vdb\n"),
    ],
    ids=["a logical volume", "md, dm-crypt and LVM", "a partition", "a read-only filesystem", "the second device of a btrfs"],
)
def test_a_disk_is_covered_by_a_filesystem_above_it(devices: str, mounts: str, btrfs: str) -> None:
    assert named(read(devices, mounts, btrfs=btrfs)) == {}


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (read(live="ext4 vdb\n"), "namespace"),
        (read(elsewhere="process 7 runc\n40 1 253:16 / /srv rw - ext4 /dev/vdb rw\n"), "ext4 at /srv"),
        (read("vdb1|253:17|vdb||\n", live="xfs vdb1\n"), "vdb1"),
        (read(LVM, elsewhere="process 7 runc\n40 1 252:0 / /srv rw - ext4 /dev/mapper/x rw\n"), "dm-0"),
        (read("", "31 1 253:16 / /data rw - vfat /dev/vdb rw\n"), "vfat"),
        (read(), "could not be read"),
    ],
)
def test_a_disk_that_is_not_covered_is_named_with_what_was_found(found: GuestDevices, word: str) -> None:
    assert list(named(found)) == ["vdb"]
    assert word in named(found)["vdb"]


def test_a_partition_in_use_beside_a_frozen_one_is_named() -> None:
    assert list(named(read("vda2|253:2|vda||\nvdb1|253:17|vdb||\n", live="ext4 vda2\n", swaps="/dev/vdb1 partition 9 0 -2\n"))) == ["vda"]


def test_what_is_mounted_in_both_namespaces_is_frozen() -> None:
    assert "vda" not in named(read(live="ext4 vda1\n", elsewhere=f"process 7 sleep\n{ROOT}\n"))


def test_contents() -> None:
    found = parse_contents("vdb empty\nvdc holds \nvdd holds zfs_member\nnonsense\n")
    assert found == {"vdb": Content(None, True), "vdc": Content(None, False), "vdd": Content("zfs_member", False)}


@pytest.mark.parametrize("text", ["", "@devices\n", "@devices\nvda|253:0|||\n", "\x00|||||\n@open\n", "sh: not found"])
def test_a_text_that_is_not_whole_tells_nothing(text: str) -> None:
    assert parse_devices(text, DISKS, {}) is None
