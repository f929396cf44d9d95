"""Words of backups, restores and proofs, and where things stand in a repository. Plain values, no I/O."""

from enum import StrEnum

FORMAT = "stillpoint-repository"
FORMAT_VERSION = 1
BLOCK_BYTES = 1 << 20
"""Bytes of one block of a disk, as the digests of its content see it. The last block of a disk may be shorter."""
REPOSITORY_FILE = "repository.json"
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
DEFINITION_FILE = "domain.xml"
STATE_FILE = "state.luks"
"""In a repository with a key: the encrypted archive of definition, NVRAM and TPM state."""
PARTIAL_PREFIX = ".partial-"


class Level(StrEnum):
    auto = "auto"
    """Each disk is incremental where that is right, and full otherwise. The record says why."""
    full = "full"
    incremental = "incremental"
    """A disk that cannot be incremental fails the job before anything is frozen."""


class Compare(StrEnum):
    """What is read back from the repository and compared with what the guest's disk held."""

    nothing = "nothing"
    copied = "copied"
    everything = "everything"


class RestoreMode(StrEnum):
    new = "new"
    """A new domain, beside the one that was backed up."""
    in_place = "in_place"
    """New disks below the definition of the domain that was backed up."""
    files = "files"
    """The disks as files in a folder. No domain is touched."""
    instant = "instant"
    """Overlays over the repository, started at once, and made whole while the domain runs."""


class VerifyWhen(StrEnum):
    """When a restore reads every byte of its point."""

    auto = "auto"
    """Before, unless a proof on record still stands for the point."""
    before = "before"


class IdentityChoice(StrEnum):
    """UUID, MAC addresses and serial numbers of the restored domain."""

    keep = "keep"
    new = "new"
    auto = "auto"
    """`keep` where no domain of the host has them, `new` otherwise."""


class ProofKind(StrEnum):
    """A statement about a point that was tested, with its date."""

    bytes = "bytes"
    structure = "structure"
    filesystem = "filesystem"
    boots = "boots"
    application = "application"
    restored = "restored"
    signature = "signature"
    """Whether the manifest of an imported point is signed, and by which key."""


class RepositoryState(StrEnum):
    """What the worker of a host last saw of a repository."""

    unknown = "unknown"
    ready = "ready"
    full = "full"
    read_only = "read_only"
    not_answering = "not_answering"
    gone = "gone"
    bad = "bad"
    """The folder is there and answers, and is not this repository."""


class DiskLevel(StrEnum):
    full = "full"
    bitmap = "bitmap"
    """What a dirty bitmap of QEMU says was written since the parent."""
    content = "content"
    """The blocks whose digests differ from those of the parent."""


def point_folder(domain_id: str, name: str) -> str:
    """Relative to the repository's folder. `name`: `<UTC time>-<first 8 of the point's id>`."""
    return f"domains/{domain_id}/{name}"
