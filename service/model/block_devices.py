"""The block devices of a Linux guest: which device is on which disk of the domain, and what uses the device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class BlockDevice:
    """`parent`: the disk of a partition. `slaves`: the devices below, for LVM, md, dm-crypt or multipath."""

    name: str
    number: str
    parent: str | None = None
    slaves: tuple[str, ...] = ()
    serial: str | None = None

    @property
    def below(self) -> tuple[str, ...]:
        return (self.parent,) if self.parent else self.slaves


@dataclass(frozen=True)
class Mount:
    mountpoint: str
    type: str
    read_only: bool


@dataclass(frozen=True)
class Content:
    """The content of a device that is not in use. `type` None: no known type."""

    type: str | None
    is_empty: bool


@dataclass
class GuestDevices:
    """The devices, by their names in the guest's kernel. `targets`: by whole disk, libvirt's name of the disk."""

    devices: dict[str, BlockDevice]
    targets: dict[str, str] = field(default_factory=dict)
    #: Devices whose mount the agent sees, and so can freeze.
    mounted: dict[str, Mount] = field(default_factory=dict)
    #: Devices with a mount that the agent does not see, to a description of that mount.
    elsewhere: dict[str, str] = field(default_factory=dict)
    #: Devices to the processes that have them open.
    open_by: dict[str, tuple[int, ...]] = field(default_factory=dict)
    swaps: frozenset[str] = frozenset()
    #: The devices of each btrfs. The guest lists a btrfs with one of its devices only.
    btrfs: tuple[frozenset[str], ...] = ()
    contents: dict[str, Content] = field(default_factory=dict)

    def disks_under(self, name: str) -> set[str]:
        """libvirt's names of the disks that a device lies on."""
        seen: set[str] = set()
        ahead = list(self.members(name))
        while ahead:
            current = ahead.pop()
            if current in seen or current not in self.devices:
                continue
            seen.add(current)
            ahead += self.devices[current].below
        return {self.targets[device] for device in seen if device in self.targets}

    def members(self, name: str) -> frozenset[str]:
        """The devices of the filesystem that is on device `name`."""
        return next((group for group in self.btrfs if name in group), frozenset({name}))

    def leaves_of(self, target: str) -> list[str]:
        """The devices at the top of a disk: what filesystems, swap and programs use."""
        used = {below for device in self.devices.values() for below in device.below}
        return sorted(name for name in self.devices if name not in used and target in self._disks_below(name))

    def knows(self, target: str) -> bool:
        return target in self.targets.values()

    def _disks_below(self, name: str) -> set[str]:
        return replace(self, btrfs=()).disks_under(name)


def targets_by_serial(devices: Mapping[str, BlockDevice], serials: Mapping[str, str]) -> dict[str, str]:
    """`serials`: libvirt's name of a disk to its serial. A virtio disk shows the first 20 characters of its serial."""
    targets = {}
    for target, serial in serials.items():
        same = [device.name for device in devices.values() if device.parent is None and device.serial == serial[:20]]
        if len(same) == 1:
            targets[same[0]] = target
    return targets
