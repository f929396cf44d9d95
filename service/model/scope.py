"""Which disks a job takes, and which filesystems must be frozen for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import DisksCannotTakePart, DiskUnknown, NoDiskCanTakePart
from service.model.inventory import AgentFacts, Disk, Filesystem, OsFamily, Survey


@dataclass(frozen=True)
class DiskSelection:
    taken: list[Disk]
    #: Target to the reason why it is left out.
    left_out: dict[str, str]
    #: The job names its disks: what is left out is left out on purpose.
    is_by_name: bool = False


NOT_NAMED = "the job does not name it"
NO_FOLDER = "it is a block device, so its overlay needs a folder: set STILLPOINT_OVERLAY_DIR"


def select_disks(domain: str, disks: Sequence[Disk], asked: Sequence[str] | None, *, has_overlay_dir: bool) -> DiskSelection:
    """The disks of the job. All that can take part when none are named; those that are named must be able to.

    `has_overlay_dir`: overlays go to a folder of their own and not beside the disk, where a block device has no room.
    Raises DiskUnknown, DisksCannotTakePart, NoDiskCanTakePart, before anything is frozen.
    """
    known = {disk.target: disk for disk in disks}
    unknown = [target for target in asked or () if target not in known]
    if unknown:
        raise DiskUnknown(domain=domain, disks=", ".join(unknown), known=", ".join(known) or "none")
    reasons = {disk.target: disk.why_not or (NO_FOLDER if disk.is_block_device and not has_overlay_dir else None) for disk in disks}
    refused = {target: reason for target in asked or () if (reason := reasons[target])}
    if refused:
        raise DisksCannotTakePart(domain=domain, summary=_summary(refused), reasons=refused)
    taken = [disk for disk in disks if reasons[disk.target] is None and (asked is None or disk.target in asked)]
    left_out = {disk.target: reasons[disk.target] or NOT_NAMED for disk in disks if disk not in taken}
    if not taken:
        raise NoDiskCanTakePart(domain=domain, summary=_summary(left_out) or "it has no disks", reasons=left_out)
    return DiskSelection(taken, left_out, is_by_name=asked is not None)


def _summary(reasons: dict[str, str]) -> str:
    return "; ".join(f"{target}: {reason}" for target, reason in reasons.items())


@dataclass(frozen=True)
class FreezeScope:
    """`mountpoints` None: every filesystem of the guest. `why`: for the reader."""

    mountpoints: tuple[str, ...] | None
    why: str
    #: Freezable filesystems that the agent's count must reach; None: not known.
    expected: int | None
    unfreezable: tuple[str, ...] = ()
    #: Set where freezing can prove nothing for the disks of the job.
    nothing_to_freeze: bool = False


def freeze_scope(survey: Survey, taken: Sequence[Disk]) -> FreezeScope:
    """Only the filesystems on the job's disks, if that is safe. Otherwise all filesystems.

    Safe: a Linux guest (never a subset on Windows, F§5.5) whose agent takes a list, where libvirt knows the disks
    under every filesystem that can be frozen.
    """
    filesystems = survey.filesystems
    if survey.is_windows:
        return FreezeScope(None, "all: on Windows a subset is never safe", expected=None)
    if filesystems is None:
        return FreezeScope(None, "all: the agent did not list the filesystems", expected=None)
    targets = {disk.target for disk in taken}
    freezable = [filesystem for filesystem in filesystems if filesystem.is_freezable]
    mine = [filesystem for filesystem in freezable if targets.intersection(filesystem.disks)]
    unfreezable = tuple(fs.mountpoint for fs in filesystems if not fs.is_freezable and targets.intersection(fs.disks))
    unmapped = [filesystem.mountpoint for filesystem in freezable if not filesystem.disks]
    if not mine and not unmapped:
        return FreezeScope(None, "none of the job's disks carries a mounted filesystem", 0, unfreezable, nothing_to_freeze=True)
    why_all = _why_all(survey.agent, unmapped, covers_all=len(mine) == len(freezable))
    if why_all:
        return FreezeScope(None, f"all: {why_all}", _devices(freezable), unfreezable)
    return FreezeScope(tuple(fs.mountpoint for fs in mine), "only those on the job's disks", _devices(mine), unfreezable)


def _why_all(agent: AgentFacts, unmapped: list[str], *, covers_all: bool) -> str | None:
    if covers_all:
        return "every filesystem lies on the job's disks"
    if agent.os_family is not OsFamily.linux:
        return "a subset is safe on Linux only"
    if unmapped:
        return f"the disks under {', '.join(unmapped)} are not known"
    if not agent.lists("guest-fsfreeze-freeze-list"):
        return "the agent takes no list"
    return None


def _devices(filesystems: Sequence[Filesystem]) -> int:
    # A device that is mounted twice is frozen, and counted, once (F§2: EBUSY is not counted).
    return len({filesystem.name for filesystem in filesystems})
