"""Which disks a job takes and which filesystems are frozen for them."""

from typing import Any

import pytest

from service.errors import DisksCannotTakePart, DiskUnknown, NoDiskCanTakePart
from service.model.inventory import READ_ONLY, AgentFacts, Disk, DomainState, Filesystem, Survey
from service.model.scope import FreezeScope, freeze_scope, select_disks

LISTS = {"guest-fsfreeze-freeze-list": True}


def disk(target: str, **changes: Any) -> Disk:
    fields: dict[str, Any] = {"device": "disk", "type": "file", "source": f"/images/{target}.qcow2", "format": "qcow2", "read_only": False}
    return Disk(target, **(fields | changes))


def fs(mountpoint: str, name: str, *disks: str, kind: str = "ext4") -> Filesystem:
    return Filesystem(mountpoint, name, kind, disks)


VDA, VDB = disk("vda"), disk("vdb")
ROOT, DATA, EFI = fs("/", "vda1", "vda"), fs("/data", "vdb1", "vdb"), fs("/boot/efi", "vda2", "vda", kind="vfat")


def scope(taken: list[Disk], filesystems: list[Filesystem] | None, *, os: str = "debian", commands: dict[str, bool] = LISTS) -> FreezeScope:
    agent = AgentFacts(channel=True, commands=commands, os={"id": os})
    return freeze_scope(Survey("db1", DomainState.running, [VDA, VDB], agent, filesystems=filesystems), taken)


# --- disks ----------------------------------------------------------------------------------------


def test_all_disks_that_can_are_taken_when_none_are_named() -> None:
    selection = select_disks("db1", [VDA, disk("vdb", read_only=True)], None, has_overlay_dir=False)
    assert selection.taken == [VDA]
    assert selection.left_out == {"vdb": READ_ONLY}


def test_named_disks_are_taken_in_the_order_of_the_domain() -> None:
    assert select_disks("db1", [VDA, VDB], ["vdb", "vda"], has_overlay_dir=False).taken == [VDA, VDB]


def test_an_unknown_disk_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DiskUnknown) as refused:
        select_disks("db1", [VDA], ["sdx", "vda", "sdy"], has_overlay_dir=False)
    assert refused.value.facts == {"domain": "db1", "disks": "sdx, sdy", "known": "vda"}


def test_a_named_disk_that_cannot_take_part_is_refused_with_its_reason() -> None:
    with pytest.raises(DisksCannotTakePart) as refused:
        select_disks("db1", [VDA, disk("vdb", read_only=True)], ["vda", "vdb"], has_overlay_dir=False)
    assert refused.value.facts["reasons"] == {"vdb": READ_ONLY}


@pytest.mark.parametrize("disks", [[], [disk("hda", device="cdrom")]])
def test_a_domain_without_a_disk_that_can_take_part_is_refused(disks: list[Disk]) -> None:
    with pytest.raises(NoDiskCanTakePart):
        select_disks("db1", disks, None, has_overlay_dir=False)


def test_a_block_device_needs_a_folder_for_its_overlay() -> None:
    block = disk("vda", type="block", source="/dev/vg/db1", format="raw")
    assert select_disks("db1", [block], None, has_overlay_dir=True).taken == [block]
    with pytest.raises(NoDiskCanTakePart, match="STILLPOINT_OVERLAY_DIR"):
        select_disks("db1", [block], None, has_overlay_dir=False)


_UNSUITABLE: list[tuple[dict[str, Any], str]] = [
    ({"device": "lun", "type": "block"}, ""),
    ({"device": "floppy"}, "floppy"),
    ({"read_only": True}, ""),
    ({"source": None}, ""),
    ({"type": "network", "source": "rbd:pool/x"}, "network"),
    ({"type": "nvme"}, "nvme"),
    ({"format": "vmdk"}, "vmdk"),
    ({"format": None}, ""),
]


@pytest.mark.parametrize(("changes", "named"), _UNSUITABLE)
def test_why_a_disk_cannot_take_part(changes: dict[str, Any], named: str) -> None:
    why_not = disk("vda", **changes).why_not
    assert why_not is not None
    assert named in why_not


def test_each_cause_for_which_a_disk_cannot_take_part_has_a_reason_of_its_own() -> None:
    assert len({disk("vda", **changes).why_not for changes, _ in _UNSUITABLE}) == len(_UNSUITABLE)


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_a_writable_disk_can_take_part(image_format: str) -> None:
    assert disk("vda", format=image_format).why_not is None


# --- filesystems ----------------------------------------------------------------------------------


def test_only_the_filesystems_on_the_disks_of_the_job() -> None:
    found = scope([VDB], [ROOT, DATA, EFI])
    assert (found.mountpoints, found.expected, found.unfreezable) == (("/data",), 1, ())


def test_all_of_them_when_the_job_takes_every_disk() -> None:
    found = scope([VDA, VDB], [ROOT, DATA, EFI])
    assert (found.mountpoints, found.expected, found.unfreezable) == (None, 2, ("/boot/efi",))


def test_all_of_them_on_windows_even_for_one_disk() -> None:
    found = scope([VDB], [ROOT, DATA], os="mswindows")
    assert (found.mountpoints, found.expected) == (None, None)


def test_all_of_them_when_the_operating_system_is_not_known() -> None:
    agent = AgentFacts(channel=True, commands=LISTS)
    survey = Survey("db1", DomainState.running, [VDA, VDB], agent, filesystems=[ROOT, DATA])
    assert freeze_scope(survey, [VDB]).mountpoints is None


def test_all_of_them_when_the_agent_takes_no_list() -> None:
    assert scope([VDB], [ROOT, DATA], commands={}).mountpoints is None


def test_all_of_them_when_the_disks_under_one_are_not_known() -> None:
    found = scope([VDB], [ROOT, DATA, fs("/loop", "loop0")])
    assert (found.mountpoints, "/loop" in found.why) == (None, True)


def test_all_of_them_without_a_number_when_the_agent_lists_none() -> None:
    found = scope([VDB], None)
    assert (found.mountpoints, found.expected, found.nothing_to_freeze) == (None, None, False)


def test_a_device_that_is_mounted_twice_is_counted_once() -> None:
    assert scope([VDB], [ROOT, DATA, fs("/srv", "vdb1", "vdb")]).expected == 1


@pytest.mark.parametrize("filesystems", [[], [ROOT], [fs("/efi", "vdb1", "vdb", kind="vfat")]])
def test_nothing_to_freeze_on_the_disks_of_the_job(filesystems: list[Filesystem]) -> None:
    assert scope([VDB], filesystems).nothing_to_freeze


def test_a_filesystem_that_may_lie_on_the_disk_is_reason_enough_to_freeze() -> None:
    assert not scope([VDB], [fs("/mystery", "dm-0")]).nothing_to_freeze
