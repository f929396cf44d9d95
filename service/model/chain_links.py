"""What must be merged so that a recovery point beside the disk goes, and which other points have their content in another file then. Pure.

A point is the file below its overlay, on each disk. The overlay is merged into that file. The next point, whose file the overlay was, has
the same content in the file of the point that goes: the guest-visible content of no other point changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Self

from service.errors import PointFilesShared, PointOffChain
from service.model.intent import Overlay


class Place(StrEnum):
    """Where the overlay of a point is in the chain of its disk."""

    active = "active"
    """The guest writes to it."""
    below = "below"
    """The guest writes to a file further above."""
    merged = "merged"
    """It was merged, and the chain does not have it any more."""


@dataclass(frozen=True)
class PointDisk:
    target: str
    file: str
    format: str
    overlay: str
    virtual_size: int

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(document["target"], document["file"], document["format"], document["overlay"], document["virtual_size"])


@dataclass(frozen=True)
class DiskPoint:
    """A point beside the disks of a domain. `is_given_up`: a merge of it has begun."""

    id: str
    disks: Sequence[PointDisk]
    is_given_up: bool = False


@dataclass(frozen=True)
class Link:
    """One disk of a point that goes: `overlay.path` is merged into `overlay.base`. `heirs`: the points whose file was `overlay.path`."""

    overlay: Overlay
    place: Place
    heirs: tuple[str, ...] = ()


def links_of(going: DiskPoint, others: Sequence[DiskPoint], chains: Mapping[str, Sequence[str]], domain: str) -> list[Link]:
    """One for each disk. `chains`: by target, the files of the disk as they are now, the active one first.

    Raises PointOffChain if a disk does not stand on the point, and PointFilesShared if another point would get another content.
    """
    return [_link(going, disk, others, list(chains.get(disk.target, ())), domain) for disk in going.disks]


def _link(going: DiskPoint, disk: PointDisk, others: Sequence[DiskPoint], chain: list[str], domain: str) -> Link:
    sharing = [other.id for other in others if not other.is_given_up and _disk_on(other, disk.file) is not None]
    heirs = tuple(other.id for other in others if _disk_on(other, disk.overlay) is not None)
    place = _place(going, disk, chain)
    if place is Place.merged:
        # Another program may have merged more than that. Then the next point is not what its record says.
        uppers = [below.overlay for other in others if (below := _disk_on(other, disk.overlay)) is not None]
        place = place if all(_stands_on(chain, upper, disk.file) for upper in uppers) else None
    if place is None:
        shown = ", ".join(chain) or "files that are not known"
        raise PointOffChain(point=going.id, domain=domain, disk=disk.target, file=disk.file, chain=shown)
    # After the merge the next point names the file.
    if sharing and place is not Place.merged:
        raise PointFilesShared(point=going.id, file=disk.file, needed_by=sorted(sharing), domains=[])
    if place is Place.active and heirs:
        # The guest writes to what this record calls a point.
        raise PointFilesShared(point=going.id, file=disk.overlay, needed_by=sorted(heirs), domains=[])
    return Link(Overlay(disk.target, disk.file, disk.format, disk.overlay, disk.virtual_size), place, heirs)


def _place(going: DiskPoint, disk: PointDisk, chain: list[str]) -> Place | None:
    """None: the disk does not stand on the point."""
    if _stands_on(chain, disk.overlay, disk.file):
        return Place.active if chain[0] == disk.overlay else Place.below
    if disk.overlay in chain or disk.file not in chain or not going.is_given_up:
        return None
    return Place.merged


def _stands_on(chain: list[str], upper: str, lower: str) -> bool:
    return (upper, lower) in pairwise(chain)


def _disk_on(point: DiskPoint, path: str) -> PointDisk | None:
    """A file may have been the disk of another target before."""
    return next((disk for disk in point.disks if disk.file == path), None)


def renamed(disks: Sequence[Mapping[str, Any]], link: Overlay, allocated: int | None) -> list[dict[str, Any]]:
    """The disks of a point whose file was merged into the file below, which has the same content now."""
    now = {"file": link.base, "format": link.base_format, "allocated": allocated}
    return [{**disk, **now} if disk["file"] == link.path else dict(disk) for disk in disks]
