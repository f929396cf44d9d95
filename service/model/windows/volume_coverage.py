"""Which volumes and disks of a Windows job the shadow copy set held, judged one by one and never by equal numbers.

The agent freezes every volume that Windows calls fixed, and reports only their number (F§1.1). The drive types that the guest reports show
which volumes these were. Without drive types the definition of the domain decides: a virtual disk that is not removable has no removable
volumes.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service.model.inventory import Filesystem


class DriveType(StrEnum):
    """GetDriveType, by number."""

    fixed = "fixed"
    removable = "removable"
    cdrom = "cdrom"
    other = "other"


@dataclass(frozen=True)
class VolumeCoverage:
    """Sentences for the reader, each of which names a volume or a disk. All empty: every disk of the job was held."""

    #: Volumes on the disks of the job that were not held.
    not_held: tuple[str, ...] = ()
    #: Disks of the job without any volume that was held.
    bare_disks: tuple[str, ...] = ()
    #: Volumes that may have been held, without a proof.
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True)
class VolumeFacts:
    """`count`: what the agent answered to the freeze; None: nothing was frozen yet, so it is not compared."""

    volumes: Sequence[Filesystem]
    #: Targets of the disks of the job; None: which it takes is not known, so every volume counts.
    taken: Collection[str] | None
    drive_types: Mapping[str, DriveType] | None = None
    count: int | None = None
    #: Targets of all disks whose definition calls them removable.
    removable: frozenset[str] = field(default_factory=frozenset)

    def is_taken(self, volume: Filesystem) -> bool:
        """Whether it is on a disk of the job, or may be: libvirt does not know the disks under it."""
        return self.taken is None or not volume.disks or any(target in self.taken for target in volume.disks)

    def drive_type(self, volume: Filesystem) -> DriveType | None:
        """None: not known."""
        if self.drive_types is not None:
            return self.drive_types.get(volume.name.lower())
        if volume.is_optical:
            return DriveType.cdrom
        if not volume.disks:
            return None
        return DriveType.removable if self.removable.intersection(volume.disks) else DriveType.fixed


def read_drive_types(output: bytes) -> dict[str, DriveType] | None:
    """Volume name in small letters to its drive type; None: nothing in it is a volume."""
    types = {match[1].decode().lower(): _DRIVE_TYPES.get(int(match[2]), DriveType.other) for match in _VOLUME.finditer(output)}
    return types or None


_VOLUME = re.compile(rb"(\\\\\?\\Volume\{[0-9a-f-]{36}\}\\) +([0-9]{1,3})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_DRIVE_TYPES = {2: DriveType.removable, 3: DriveType.fixed, 5: DriveType.cdrom}


def judge_volumes(facts: VolumeFacts) -> VolumeCoverage:
    mine = [volume for volume in facts.volumes if facts.is_taken(volume)]
    not_held = [*_not_held(facts, mine), *_too_few(facts, mine)]
    doubtful = [f"whether {_named(volume)} is fixed is not known" for volume in mine if _may_be_fixed(facts, volume)]
    bare = _bare(facts)
    unmapped = [volume.mountpoint for volume in facts.volumes if volume.is_windows_volume and not volume.disks]
    if bare and unmapped:
        doubtful.append(f"no volume is known to lie on {', '.join(bare)}, and the disks under {', '.join(unmapped)} are not known")
        bare = []
    return VolumeCoverage(tuple(not_held), tuple(bare), tuple(doubtful))


def _not_held(facts: VolumeFacts, mine: Sequence[Filesystem]) -> Iterator[str]:
    for volume in mine:
        kind = facts.drive_type(volume)
        if kind is DriveType.cdrom:
            continue
        if not volume.is_windows_volume:
            yield f"{_named(volume)}: VSS holds no volume of this type"
        elif kind in (DriveType.removable, DriveType.other):
            yield f"{_named(volume)}: it is {kind}, and the agent freezes fixed volumes only"


def _too_few(facts: VolumeFacts, mine: Sequence[Filesystem]) -> Iterator[str]:
    """Fewer than there are means that some are missing, and not which."""
    if facts.count is None:
        return
    if facts.drive_types is not None:
        expected = sum(kind is DriveType.fixed for kind in facts.drive_types.values())
    else:
        expected = sum(volume.is_windows_volume and facts.drive_type(volume) in (DriveType.fixed, None) for volume in facts.volumes)
    if facts.count < expected:
        yield f"{expected - facts.count} of {expected} volumes ({', '.join(volume.mountpoint for volume in mine)})"


def _may_be_fixed(facts: VolumeFacts, volume: Filesystem) -> bool:
    # Without drive types the disk of a volume decides. `bare` names the disks for which that matters.
    return facts.drive_types is not None and volume.is_windows_volume and facts.drive_type(volume) is None


def _bare(facts: VolumeFacts) -> list[str]:
    held = {
        target
        for volume in facts.volumes
        if volume.is_windows_volume and facts.drive_type(volume) in (DriveType.fixed, None)
        for target in volume.disks
    }
    return [target for target in facts.taken or () if target not in held]


def _named(volume: Filesystem) -> str:
    where = f" on {', '.join(volume.disks)}" if volume.disks else ""
    return f"{volume.mountpoint} ({volume.type}){where}"
