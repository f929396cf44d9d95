"""What a restore is planned from: the point, the host, and the definition of the domain. Plain values; None means: not known."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.model.domain_xml import nvram_path
from service.model.host_adaptation import Adaptation
from service.model.inventory import DomainState
from service.model.manifest import DiskOfPoint, LeftOut, Manifest, disk_of
from service.model.windows.domain_controller import is_domain_controller


@dataclass(frozen=True)
class PointFacts:
    """A sealed point, as its manifest or its row tells of it."""

    id: str
    folder: str
    domain_id: str
    domain_name: str
    disks: Sequence[DiskOfPoint]
    left_out: Sequence[LeftOut] = ()
    #: None: no record tells.
    is_domain_controller: bool | None = None
    has_nvram: bool = False
    has_tpm: bool = False
    #: By target: the bytes that the disk's file and the files below it have in the repository. An absent target: not known.
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    #: By target: the files that stand on each other in the repository. An absent target: not known.
    layers: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_manifest(cls, manifest: Manifest, chain: Mapping[str, Manifest]) -> "PointFacts":
        """`chain`: by id, the manifests of the points from which this one inherits."""
        return cls(
            id=manifest.point_id,
            folder=manifest.folder,
            domain_id=manifest.domain_id,
            domain_name=manifest.domain_name,
            disks=manifest.disks,
            left_out=manifest.left_out,
            is_domain_controller=is_domain_controller(manifest.vss),
            has_nvram=bool(manifest.state_files.get("nvram")),
            has_tpm=bool(manifest.state_files.get("tpm")),
            stored_bytes={disk.target: _stored(manifest, disk, chain) for disk in manifest.disks},
            layers={disk.target: _layers(disk, chain) for disk in manifest.disks},
        )

    @classmethod
    def of_row(cls, row: Any, vss: Mapping[str, Any] | None) -> "PointFacts":
        """`row` has the columns of the point's row as attributes. `vss`: of the job that took the point."""
        return cls(
            id=row.id,
            folder=row.folder or "",
            domain_id=row.domain_id,
            domain_name=row.domain_name,
            disks=tuple(disk_of(disk) for disk in row.disks),
            left_out=tuple(LeftOut(disk["target"], disk["reason"]) for disk in row.left_out or ()),
            is_domain_controller=is_domain_controller(vss),
        )


def _stored(manifest: Manifest, disk: DiskOfPoint, chain: Mapping[str, Manifest]) -> int:
    """The sum over the disk's file and all files below it that `chain` knows."""
    size = next((file.bytes for file in manifest.files if file.name == disk.file), 0)
    below = chain.get(disk.parent) if disk.parent is not None else None
    if below is None:
        return size
    return size + sum(_stored(below, layer, chain) for layer in below.disks if layer.target == disk.target)


def any_says(*answers: bool | None) -> bool | None:
    """True: one of them says so. None: none of them tells."""
    if True in answers:
        return True
    return False if False in answers else None


def _layers(disk: DiskOfPoint, chain: Mapping[str, Manifest]) -> int:
    below = chain.get(disk.parent) if disk.parent is not None else None
    layers = [each for each in below.disks if each.target == disk.target] if below is not None else []
    return 1 + sum(_layers(layer, chain) for layer in layers)


@dataclass(frozen=True)
class DefinedDisk:
    target: str
    source: str | None
    type: str
    device: str
    is_read_only: bool
    serial: str | None


@dataclass(frozen=True)
class Definition:
    """What a definition of libvirt says about identity, disks and state files."""

    name: str
    uuid: str
    macs: tuple[str, ...] = ()
    disks: Mapping[str, DefinedDisk] = field(default_factory=dict)
    has_genid: bool = False
    nvram: str | None = None

    @classmethod
    def of_xml(cls, xml: str) -> "Definition":
        root = ET.fromstring(xml)
        disks = [_disk(element) for element in root.iterfind("./devices/disk")]
        return cls(
            name=root.findtext("name") or "",
            uuid=(root.findtext("uuid") or "").lower(),
            macs=tuple((mac.get("address") or "").lower() for mac in root.iterfind("./devices/interface/mac")),
            disks={disk.target: disk for disk in disks},
            has_genid=root.find("genid") is not None,
            nvram=nvram_path(xml),
        )


def _disk(element: ET.Element) -> DefinedDisk:
    target, source = element.find("target"), element.find("source")
    name = source.get("file") or source.get("dev") if source is not None else None
    return DefinedDisk(
        target=target.get("dev", "?") if target is not None else "?",
        source=name,
        type=element.get("type", "file"),
        device=element.get("device", "disk"),
        is_read_only=element.find("readonly") is not None,
        serial=element.findtext("serial"),
    )


@dataclass(frozen=True)
class KnownDomain:
    """A domain of any host. `macs` None: not known. `host` None: the host of the restore."""

    uuid: str
    name: str
    state: DomainState
    macs: frozenset[str] | None = None
    host: str | None = None

    @property
    def may_write(self) -> bool:
        """The domain is known to have a QEMU now."""
        return self.state in (DomainState.running, DomainState.paused)


@dataclass(frozen=True)
class Space:
    """The free space of the filesystem of a folder. `device` tells filesystems apart."""

    device: int
    free_bytes: int


@dataclass(frozen=True)
class HostFacts:
    """The host where the point is restored. `mark` becomes a part of the names of new files: the first characters of the job's id, and
    after a dash the number of the attempt if it is not the first.

    `definition`: of the point. `current`: of the domain in place. The API knows neither of them.
    """

    host_id: str
    mark: str
    domains: Sequence[KnownDomain] = ()
    #: The domains of the other hosts, as they were published.
    elsewhere: Sequence[KnownDomain] = ()
    definition: Definition | None = None
    current: Definition | None = None
    #: By folder. An absent folder: not known.
    spaces: Mapping[str, Space] = field(default_factory=dict)
    #: The files at the paths of a plan that were there already.
    existing: frozenset[str] = frozenset()
    adaptations: Sequence[Adaptation] = ()
    #: Bytes a second of the earlier restores on record.
    rate_bytes_s: float | None = None

    @property
    def seed(self) -> str:
        """The same for all attempts of a job, so that all give the domain the same new identity."""
        return self.mark.partition("-")[0]

    def domain_of(self, uuid: str) -> KnownDomain | None:
        return next((domain for domain in self.domains if domain.uuid == uuid.lower()), None)

    def elsewhere_of(self, uuid: str) -> KnownDomain | None:
        """The domain of this UUID on another host. One that runs comes before one that is off."""
        same = [domain for domain in self.elsewhere if domain.uuid == uuid.lower()]
        return min(same, key=lambda domain: not domain.may_write, default=None)

    @property
    def everywhere(self) -> tuple[KnownDomain, ...]:
        return (*self.domains, *self.elsewhere)

    def name_is_anywhere(self, name: str, by_other_than: str) -> bool:
        return any(domain.name == name and domain.uuid != by_other_than for domain in self.everywhere)

    def name_is_taken(self, name: str, by_other_than: str) -> bool:
        return any(domain.name == name and domain.uuid != by_other_than for domain in self.domains)
