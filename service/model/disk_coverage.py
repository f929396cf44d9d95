"""Which disks of a Linux job the freeze covered, judged disk by disk.

A disk is covered if a filesystem on the disk was frozen and nothing else on the disk is in use. Swap holds no data that outlives
the guest, and an empty disk holds no data. Any other content may have been written to during the freeze, and lowers the verdict.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from service.model.block_devices import GuestDevices
from service.model.coverage_facts import LeftOut, Uncovered
from service.model.inventory import Disk, Filesystem, Survey

RAW_TYPES = frozenset({"zfs_member", "ceph_bluestore", "oracleasm", "drbd", "bcache"})
"""Signatures of software that uses a device without a mount."""


def with_disks(filesystems: Sequence[Filesystem], devices: GuestDevices) -> list[Filesystem]:
    """The filesystems, each with the disks below it that libvirt knows and those that the guest knows."""
    return [replace(fs, disks=tuple(sorted({*fs.disks, *devices.disks_under(fs.name)}))) for fs in filesystems]


def filesystems_of(devices: GuestDevices) -> list[Filesystem]:
    """The filesystems that the agent would have listed."""
    mounted = devices.mounted.items()
    return [Filesystem(mount.mountpoint, name, mount.type, tuple(sorted(devices.disks_under(name)))) for name, mount in mounted]


def unheld_filesystems(survey: Survey, taken: Sequence[Disk]) -> tuple[str, ...]:
    """Filesystems on the disks of the job that are mounted for writing and cannot be frozen. A boot partition counts as at rest."""
    targets = {disk.target for disk in taken}
    mounted = survey.devices.mounted if survey.devices else {}
    return tuple(
        f"{fs.mountpoint} ({fs.type} on {', '.join(fs.disks)})"
        for fs in survey.filesystems or ()
        if targets.intersection(fs.disks)
        and not fs.is_at_rest_when_frozen
        and not fs.is_boot_partition
        and not (fs.name in mounted and mounted[fs.name].read_only)
    )


def left_out_with_data(survey: Survey, left_out: Mapping[str, str], *, by_name: bool) -> tuple[LeftOut, ...]:
    """`left_out`: target to the reason. `by_name`: the caller named the disks. A CD-ROM or floppy does not hold data of the guest."""
    disks = {disk.target: disk for disk in survey.disks}
    with_data = []
    for target, reason in left_out.items():
        mountpoints = tuple(fs.mountpoint for fs in survey.filesystems or () if target in fs.disks)
        disk = disks.get(target)
        if mountpoints and disk is not None and disk.device in ("disk", "lun"):
            with_data.append(LeftOut(target, reason, mountpoints, not disk.read_only and not by_name))
    return tuple(with_data)


def uncovered_disks(survey: Survey, taken: Sequence[Disk]) -> tuple[Uncovered, ...]:
    """The disks of the job that the freeze did not cover. The freeze must have reached every filesystem of the survey."""
    uncovered = []
    for disk in taken:
        why = _why_not(survey, disk.target)
        if why is not None:
            uncovered.append(Uncovered(disk.target, why))
    return tuple(uncovered)


def _why_not(survey: Survey, target: str) -> str | None:
    filesystems, devices = survey.filesystems, survey.devices
    is_covered = any(target in filesystem.disks for filesystem in filesystems or () if filesystem.is_at_rest_when_frozen)
    if devices is None or not devices.knows(target):
        if is_covered or _must_be_on(survey, target):
            return None
        return "no filesystem on this disk is listed, and its content could not be read in the guest"
    leaves = devices.leaves_of(target)
    in_use = list(_in_use(devices, leaves, _frozen(filesystems or (), devices)))
    if in_use:
        return "; ".join(in_use)
    return None if is_covered else _why_bare(devices, leaves)


def _must_be_on(survey: Survey, target: str) -> bool:
    """True if the domain has one writable disk: then a filesystem whose disk is unknown lies on that disk."""
    writable = [disk.target for disk in survey.disks if disk.device in ("disk", "lun") and not disk.read_only]
    if writable != [target]:
        return False
    return survey.filesystems is None or any(filesystem.is_freezable and not filesystem.disks for filesystem in survey.filesystems)


def _frozen(filesystems: Sequence[Filesystem], devices: GuestDevices) -> set[str]:
    return {name for filesystem in filesystems for name in devices.members(filesystem.name)}


def _in_use(devices: GuestDevices, leaves: Sequence[str], frozen: Collection[str]) -> Iterator[str]:
    for name in leaves:
        if name in frozen or name in devices.mounted or name in devices.swaps:
            continue
        content = devices.contents.get(name)
        if name in devices.elsewhere:
            yield f"{name} is mounted where the agent does not see the mount, so {name} was not frozen: {devices.elsewhere[name]}"
        elif name in devices.open_by:
            processes = ", ".join(str(pid) for pid in devices.open_by[name])
            yield f"{name} is used without a filesystem that could be frozen: process {processes} has it open"
        elif content is not None and content.type in RAW_TYPES:
            yield f"{name} is used without a filesystem that could be frozen: {content.type}"


def _why_bare(devices: GuestDevices, leaves: Sequence[str]) -> str | None:
    unknown = []
    for name in leaves:
        content = devices.contents.get(name)
        if name in devices.swaps or (content is not None and (content.is_empty or content.type == "swap")):
            continue
        if name in devices.mounted and devices.mounted[name].read_only:
            continue
        if name in devices.mounted:
            unknown.append(f"{name} ({devices.mounted[name].type}, which cannot be frozen)")
        elif content is None:
            unknown.append(f"{name} (could not be read)")
        else:
            unknown.append(f"{name} ({content.type or 'not empty, of no known type'}, not mounted)")
    return f"no frozen filesystem is on this disk, and the disk is not empty: {', '.join(unknown)}" if unknown else None
