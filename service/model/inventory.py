"""Plain facts about a domain and its guest. The hypervisor layer reads them, and other modules judge them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.errors import StillpointError
from service.model.block_devices import GuestDevices
from service.model.foreign_freeze import ForeignFreeze
from service.model.verdict import HookState

SNAPSHOT_FORMATS = frozenset({"qcow2", "raw"})

FREEZABLE_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "gfs2", "jfs", "nilfs2", "reiserfs", "bcachefs"})
"""Linux filesystems that implement freeze. The agent skips other types and does not report that (EOPNOTSUPP, F§2)."""

READ_ONLY_TYPES = frozenset({"iso9660", "squashfs", "erofs", "cramfs", "romfs"})
"""Types of filesystems that cannot be written to, so that they need no freeze."""
BOOT_TYPES = frozenset({"vfat", "msdos"})
_BOOT = re.compile(r"/(boot|efi)(/.*)?")

FAT_TYPES = frozenset({"fat", "fat32", "exfat"})
WINDOWS_VOLUME_TYPES = frozenset({"ntfs", "refs", "csvfs"}) | FAT_TYPES
"""Types of volumes on fixed disks. VSS does not hold volumes of other types (RAW, ZFS, CDFS)."""
OPTICAL_TYPES = frozenset({"cdfs", "udf"})


class DomainState(StrEnum):
    running = "running"
    paused = "paused"
    shut_off = "shut_off"
    other = "other"


class OsFamily(StrEnum):
    linux = "linux"
    windows = "windows"
    unknown = "unknown"


_DRIVE = re.compile(r"[A-Za-z]:\\")


@dataclass(frozen=True)
class DiskWords:
    """The definition's settings of a disk, and of the files below its active file if libvirt knows them."""

    snapshot: str | None = None
    shareable: bool = False
    transient: bool = False
    encrypted: bool = False
    sliced: bool = False
    #: Its file was handed to libvirt as an open descriptor.
    by_descriptor: bool = False
    has_data_store: bool = False

    @property
    def why_not(self) -> str | None:
        reasons = {
            f"the domain says snapshot='{self.snapshot}'": self.snapshot in ("no", "manual"),
            "the domain says <shareable/>: other domains may write to the disk while this domain is frozen": self.shareable,
            "the domain says <transient/>: what the guest writes to the disk is lost when the domain stops": self.transient,
            f"{ENCRYPTED}: an overlay would hold the data of the guest unencrypted": self.encrypted,
            "the guest sees only a slice of the file, and an overlay would show the whole file": self.sliced,
            "libvirt got the file as an open descriptor, which an overlay cannot name": self.by_descriptor,
            DATA_FILE: self.has_data_store,
        }
        return next((reason for reason, is_so in reasons.items() if is_so), None)


@dataclass(frozen=True)
class ImageFacts:
    """The facts in the headers of a disk's files, the active file first. Files that cannot be read are left out."""

    files: tuple[str, ...] = ()
    #: Why the disk cannot get an overlay; None: the headers allow an overlay.
    why_not: str | None = None
    #: True for a block device, even if the definition says something else.
    is_block_device: bool = False
    #: File to the number of snapshots inside the file.
    internal_snapshots: Mapping[str, int] = field(default_factory=dict)


READ_ONLY = "it is read-only"
ENCRYPTED = "the disk is encrypted"
DATA_FILE = "the image keeps its data in an external data file, which a recovery point would not name"


@dataclass(frozen=True)
class Disk:
    """One `<disk>`. `source` is a path for files and block devices, and a readable name for other types."""

    target: str
    device: str
    type: str
    source: str | None
    format: str | None
    read_only: bool
    serial: str | None = None
    chain_depth: int = 0
    words: DiskWords = DiskWords()
    #: The files below the active file, as far as libvirt knows them.
    chain: tuple[str | None, ...] = ()
    #: None: the files were not read.
    image: ImageFacts | None = None
    #: The definition makes it a removable disk, which Windows does not freeze.
    removable: bool = False

    @property
    def files_below(self) -> int:
        """libvirt may name no file below if the domain is off. The headers do."""
        read = len(self.image.files) - 1 if self.image is not None else 0
        return max(self.chain_depth, read)

    @property
    def is_block_device(self) -> bool:
        return self.type == "block" or (self.image is not None and self.image.is_block_device)

    @property
    def why_not(self) -> str | None:
        """Why this disk cannot take part in a snapshot; None: the disk can take part."""
        if self.device == "lun":
            return "it is a raw SCSI device passed through to the guest"
        if self.device != "disk":
            return f"it is a {self.device}"
        if self.read_only:
            return READ_ONLY
        if self.source is None:
            return "it has no source"
        if self.words.why_not is not None:
            return self.words.why_not
        if self.type not in ("file", "block"):
            return f"its source is of type {self.type}, and only files and block devices can get an overlay"
        if self.format not in SNAPSHOT_FORMATS:
            return f"its format is {self.format or 'unknown'}, and only {' and '.join(sorted(SNAPSHOT_FORMATS))} can be a backing file"
        return self.image.why_not if self.image is not None else None

    def as_document(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "device": self.device,
            "type": self.type,
            "source": self.source,
            "format": self.format,
            "read_only": self.read_only,
            "serial": self.serial,
            "can_snapshot": self.why_not is None,
            "reason": self.why_not,
            "chain_depth": self.chain_depth,
            "chain": list(self.chain),
        }


@dataclass(frozen=True)
class Filesystem:
    """One mounted filesystem as the agent reports it; `disks` are libvirt's targets, empty where libvirt knows none."""

    mountpoint: str
    name: str
    type: str
    disks: tuple[str, ...]

    @property
    def is_freezable(self) -> bool:
        """Whether a Linux guest can freeze this filesystem. Windows holds every fixed volume (F§1.1)."""
        return self.type in FREEZABLE_TYPES

    @property
    def is_read_only_by_type(self) -> bool:
        return self.type in READ_ONLY_TYPES

    @property
    def is_at_rest_when_frozen(self) -> bool:
        return self.is_freezable or self.is_read_only_by_type

    @property
    def is_boot_partition(self) -> bool:
        """An EFI or firmware partition. The guest writes to it only when the boot loader is updated."""
        return self.type in BOOT_TYPES and bool(_BOOT.fullmatch(self.mountpoint))

    @property
    def is_windows_volume(self) -> bool:
        return self.type.lower() in WINDOWS_VOLUME_TYPES

    @property
    def is_optical(self) -> bool:
        """A filesystem of optical discs. The guest does not write to it while it is mounted."""
        return self.type.lower() in OPTICAL_TYPES

    @property
    def is_fat(self) -> bool:
        """A filesystem that removable disks have. The agent does not say whether the disk is removable or fixed (F§7.18)."""
        return self.type.lower() in FAT_TYPES

    def as_document(self) -> dict[str, Any]:
        return {"mountpoint": self.mountpoint, "name": self.name, "type": self.type, "disks": list(self.disks)}


@dataclass
class AgentFacts:
    """`fault` None: the agent answers. `commands`: by name, whether it is enabled while thawed, by guest-info (F§7.29); None: not known."""

    channel: bool
    fault: StillpointError | None = None
    version: str | None = None
    commands: dict[str, bool] | None = None
    frozen: bool | None = None
    os: dict[str, Any] | None = None
    #: The guest has the programs of a Linux, whatever its agent says about the system.
    runs_linux: bool = False
    #: The error of an agent that answers, but answers every freeze command with this error.
    freeze_fault: StillpointError | None = None

    @property
    def answers(self) -> bool:
        return self.channel and self.fault is None

    def allows(self, command: str) -> bool:
        """Whether the agent may accept the command. A command counts as allowed unless the agent is known to refuse it."""
        return self.commands is None or self.lists(command)

    def lists(self, command: str) -> bool:
        return (self.commands or {}).get(command, False)

    @property
    def os_family(self) -> OsFamily:
        identifier = (self.os or {}).get("id")
        if identifier is None:
            return OsFamily.linux if self.runs_linux else OsFamily.unknown
        return OsFamily.windows if identifier == "mswindows" else OsFamily.linux

    def as_document(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "connected": self.answers if self.channel else None,
            "version": self.version,
            "freeze_enabled": self.allows("guest-fsfreeze-freeze") if self.commands else None,
            "exec_enabled": self.allows("guest-exec") if self.commands else None,
        }


@dataclass
class LinuxFacts:
    """Facts that are read inside a Linux guest through guest-exec. If guest-exec is blocked, none of them is known."""

    uptime_s: float | None = None
    network_mounts: tuple[str, ...] = ()
    loop_mounts: tuple[str, ...] = ()
    hook: HookState = HookState.not_inspected
    hook_path: str | None = None


@dataclass(frozen=True)
class Space:
    """Free space of one folder against what its new overlays may need."""

    path: str
    free_bytes: int
    needed_bytes: int

    @property
    def is_enough(self) -> bool:
        return self.free_bytes >= self.needed_bytes


@dataclass
class Survey:
    """All facts that were read about one domain before a job."""

    domain: str
    state: DomainState
    disks: list[Disk]
    agent: AgentFacts
    shut_off_cleanly: bool | None = None
    filesystems: list[Filesystem] | None = None
    linux: LinuxFacts | None = None
    #: None: they could not be read, or the guest is not known to be a Linux.
    devices: GuestDevices | None = None
    #: None: the guest is not frozen, or nothing more is known of it.
    foreign_freeze: ForeignFreeze | None = None
    #: By disk target: the job that runs on the disk. The key "" is a job of the whole domain.
    busy: dict[str, str] = field(default_factory=dict)

    @property
    def is_windows(self) -> bool:
        """By guest-get-osinfo. Agents older than 2.10 do not have that command; then drive letters show that the guest is Windows."""
        if self.agent.os_family is not OsFamily.unknown:
            return self.agent.os_family is OsFamily.windows
        return any(_DRIVE.match(filesystem.mountpoint) for filesystem in self.filesystems or ())

    @property
    def hook(self) -> HookState:
        return self.linux.hook if self.linux else HookState.not_inspected
