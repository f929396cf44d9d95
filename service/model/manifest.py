"""The manifest of a sealed point: what is in its folder, what is not and why, and the evidence of how the point was taken.

It is written as canonical JSON (RFC 8785), signed, and everything that a restore needs without the service. A reader of a newer version
refuses nothing that it knows; a version above VERSION is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.errors import RecordUnreadable, VersionUnknown
from service.model.repository import DiskLevel

VERSION = 2
PLAIN_VERSION = 1
"""The version of a point whose state is not encrypted. A reader that knows this version only looks for the files by their names."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the folder of the point. `sha256`: of the stored bytes, in hex."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DiskOfPoint:
    """One disk. `parent`: the id of the point whose file is the backing file of this one; None: the file stands alone.

    `content`: SHA-256 in hex over the digests of all blocks that the guest sees, one after the other. `blocks_file`: the file with these
    digests (32 bytes each, `BLOCK_BYTES` of the disk each). `checkpoint`: the bitmap that records what is written after this point.
    `serial`, `source_files`: by what the disk is known again; the paths of its files on the host, the active one first. Earlier versions
    wrote no paths.
    """

    target: str
    file: str
    virtual_size: int
    level: DiskLevel
    reason: str
    content: str
    blocks_file: str
    copied_bytes: int
    parent: str | None = None
    parent_folder: str | None = None
    checkpoint: str | None = None
    is_compressed: bool = False
    is_encrypted: bool = False
    source_format: str = "qcow2"
    serial: str | None = None
    source_files: Sequence[str] = ()

    def as_document(self) -> dict[str, Any]:
        document = {**vars(self), "level": self.level.value, "source_files": list(self.source_files)}
        if not self.source_files:
            # A manifest of an earlier version stays what it was.
            del document["source_files"]
        return document


@dataclass(frozen=True)
class LeftOut:
    """A disk of the domain that is not in the point."""

    target: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """`times`: RFC 3339 UTC. `evidence`, `verdict_reasons`, `timing`, `vss`: as the job shows them."""

    point_id: str
    repository_id: str
    folder: str
    job_id: str
    host_id: str
    domain_id: str
    domain_name: str
    point_in_time_at: str
    sealed_at: str
    verdict: str
    verdict_reasons: Sequence[Any]
    disks: Sequence[DiskOfPoint]
    left_out: Sequence[LeftOut]
    files: Sequence[StoredFile]
    evidence: Mapping[str, Any] | None = None
    timing: Mapping[str, Any] | None = None
    vss: Mapping[str, Any] | None = None
    #: The definition's file, and the files of NVRAM and TPM by what they are: {"definition": "domain.xml", "nvram": ..., "tpm": [...]}.
    #: With `archive` these are files inside that one, which is encrypted.
    state_files: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = False
    #: {"libvirt": "9.0.0", "hypervisor": "QEMU 7.2.22", "stillpoint": "0.1.0"}
    versions: Mapping[str, str] = field(default_factory=dict)
    #: The id of the key that signs (`service.repository.signing`).
    key_id: str | None = None
    #: Points that were merged into this one, oldest first: [{"at", "job_id", "points", "replaces"}]. `replaces`: the digest of the manifest
    #: before. What the guest sees is what it was.
    merges: Sequence[Mapping[str, Any]] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        """The ids of the points that must be whole for this one to be whole, without those further down."""
        return tuple(sorted({disk.parent for disk in self.disks if disk.parent is not None}))

    def as_document(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if name not in ("disks", "left_out", "files", "merges")}
        if self.merges:
            # The manifest of a point that was never merged stays what earlier versions wrote.
            plain["merges"] = [dict(merge) for merge in self.merges]
        return {
            "format": "stillpoint-point",
            "v": VERSION if self.state_files.get("archive") is not None else PLAIN_VERSION,
            **plain,
            "verdict_reasons": list(self.verdict_reasons),
            "disks": [disk.as_document() for disk in self.disks],
            "left_out": [dict(vars(disk)) for disk in self.left_out],
            "files": [dict(vars(file)) for file in self.files],
            "parents": list(self.parents),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Manifest":
        """Raises VersionUnknown, RecordUnreadable."""
        try:
            if document["format"] != "stillpoint-point":
                raise ValueError(f"its format is {document['format']!r}")
            if document["v"] > VERSION:
                raise VersionUnknown(what="manifest", version=document["v"], known=VERSION)
            plain = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
            return cls(
                **plain
                | {
                    "disks": tuple(disk_of(disk) for disk in document["disks"]),
                    "left_out": tuple(LeftOut(disk["target"], disk["reason"]) for disk in document["left_out"]),
                    "files": tuple(StoredFile(file["name"], file["bytes"], file["sha256"]) for file in document["files"]),
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordUnreadable(what="manifest", reason=f"{type(error).__name__}: {error}") from error


def disk_of(document: Mapping[str, Any]) -> DiskOfPoint:
    """A disk as the manifest and the point's row have it."""
    known = {name: document[name] for name in DiskOfPoint.__dataclass_fields__ if name in document}
    return DiskOfPoint(**known | {"level": DiskLevel(document["level"]), "source_files": tuple(document.get("source_files") or ())})
