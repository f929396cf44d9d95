"""How each disk of a backup is copied: in full, by the bitmap of the last point, or by content. Pure rules, no I/O.

An increment by bitmap trusts QEMU's bitmap for what was written since the parent. So every doubt about the bitmap makes the copy a full
one. An increment by content trusts only the digests of the parent: every block is read, and what differs is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.errors import LevelImpossible
from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import DiskLevel, Level
from service.model.retention_rules import FullDue, NewFull, full_is_due

MAX_CHAIN = 22
"""Points that may stand on each other. The next copy of the disk is then a full one. libvirt 10.8 to 11.x starts no domain on a chain of
more than about 25 files, and an instant restore adds a file of its own (`service.model.restore_plan.MAX_INSTANT_LAYERS`)."""


class BitmapState(StrEnum):
    """What libvirt, QEMU and the image say of the bitmap of the last point."""

    whole = "whole"
    in_use = "in-use"
    """QEMU was killed while it had the bitmap in memory. What was written since then is lost."""
    absent = "absent"
    """The disk was replaced, restored or converted without its bitmaps."""
    broken_chain = "broken-chain"
    """A file of the disk's chain was written without the bitmap."""
    other_content = "other-content"
    """The bitmap is whole, and belongs to another disk of the last point: disks changed places."""
    unrecorded = "unrecorded"
    """libvirt has no record of the checkpoint: the bitmap may have been left alone by what libvirt did since then."""
    unusable = "unusable"
    """libvirt or QEMU refuses the bitmap, for the reason that they give."""


_WHY_NOT = {
    BitmapState.in_use: "the bitmap is marked in-use since QEMU was killed",
    BitmapState.absent: "the disk has no bitmap of the last point: it was replaced, restored or converted",
    BitmapState.broken_chain: "a file of the disk was written without the bitmap",
    BitmapState.other_content: "the disk is another one than that of the last point",
    BitmapState.unrecorded: "libvirt has no record of the checkpoint of the last point",
    BitmapState.unusable: "the bitmap of the last point cannot be used",
}


@dataclass(frozen=True)
class DiskNow:
    """A disk as it is now. `bitmap`: the state of the bitmap of the parent's checkpoint; None: it was not asked for. `detail`: in words.

    `serial`, `source_files`: as in the manifest.
    """

    target: str
    source_format: str
    virtual_size: int
    bitmap: BitmapState | None = None
    detail: str | None = None
    serial: str | None = None
    source_files: Sequence[str] = ()


@dataclass(frozen=True)
class Earlier:
    """The last sealed point of the domain in this repository. `depth`: how many points it stands on, itself included.

    `sizes`: the stored bytes of each of these points, the full one first.
    """

    manifest: Manifest
    depth: int = 1
    sizes: Sequence[int] = ()

    def disk(self, target: str) -> DiskOfPoint | None:
        return next((disk for disk in self.manifest.disks if disk.target == target), None)

    def own_files(self, target: str) -> set[str]:
        """The files that the disk did not share with another one, as disks share a template."""
        files = {disk.target: set(disk.source_files) for disk in self.manifest.disks}
        return files.pop(target, set()).difference(*files.values())


@dataclass(frozen=True)
class Decision:
    """`parent`: the disk of the last point on which the copy stands; None: the copy stands alone."""

    target: str
    level: DiskLevel
    reason: str
    parent: DiskOfPoint | None = None
    parent_id: str | None = None
    parent_folder: str | None = None

    @property
    def bitmap(self) -> str | None:
        return self.parent.checkpoint if self.parent is not None and self.level is DiskLevel.bitmap else None


def parents_bitmap(earlier: Earlier | None, target: str) -> str | None:
    """The bitmap to look at before a disk is decided about. None: there is none that could count."""
    disk = earlier.disk(target) if earlier is not None else None
    return disk.checkpoint if disk is not None else None


def decide(
    asked: Level, disk: DiskNow, earlier: Earlier | None, *, is_encrypted: bool, no_earlier: str = "", new_full: NewFull | None = None
) -> Decision:
    """`no_earlier`: why there is no earlier point, in words. `new_full`: when the chain is long enough, by the retention of a policy."""
    if asked is Level.full:
        return Decision(disk.target, DiskLevel.full, "a full copy was asked for")
    if earlier is None:
        return Decision(disk.target, DiskLevel.full, no_earlier or "it is the first point of the domain in this repository")
    if asked is Level.auto and new_full is not None and (why_full := _why_new_full(earlier.sizes, new_full)) is not None:
        return Decision(disk.target, DiskLevel.full, why_full)
    parent = earlier.disk(disk.target)
    why_alone = _why_alone(disk, earlier, parent, is_encrypted=is_encrypted)
    if parent is None or why_alone is not None:
        return Decision(disk.target, DiskLevel.full, why_alone or "")
    level, reason = _increment(disk, parent)
    if level is DiskLevel.bitmap and (is_other := _why_another(disk, earlier, parent)) is not None:
        level, reason = DiskLevel.full, is_other
    if level is DiskLevel.full:
        return Decision(disk.target, level, reason)
    if disk.virtual_size > parent.virtual_size:
        reason += f"; the disk has grown from {parent.virtual_size} to {disk.virtual_size} bytes"
    return Decision(disk.target, level, reason, parent, earlier.manifest.point_id, earlier.manifest.folder)


def _why_new_full(sizes: Sequence[int], limits: NewFull) -> str | None:
    """All disks are full at once, so that no point needs a part of an older chain."""
    due = full_is_due(sizes, limits)
    if due is FullDue.chain_deep:
        return f"{len(sizes) - 1} increments stand on the last full point, and new_full.max_depth is {limits.max_depth}"
    if due is FullDue.chain_large:
        return (
            f"the increments on the last full point have {sum(sizes[1:])} bytes and that point has {sizes[0]}, "
            f"and new_full.max_ratio is {limits.max_ratio:g}"
        )
    return None


def _why_alone(disk: DiskNow, earlier: Earlier, parent: DiskOfPoint | None, *, is_encrypted: bool) -> str | None:
    """Why no increment at all can stand on the last point."""
    if parent is None:
        return "the disk is not in the last point"
    if disk.virtual_size < parent.virtual_size:
        return f"the disk has shrunk from {parent.virtual_size} to {disk.virtual_size} bytes"
    if parent.is_encrypted != is_encrypted:
        return "the repository has got a key since the last point" if is_encrypted else "the last point is encrypted, and this one is not"
    if earlier.depth >= MAX_CHAIN:
        return f"{earlier.depth} points stand on each other, which is the limit"
    return None


def _why_another(disk: DiskNow, earlier: Earlier, parent: DiskOfPoint) -> str | None:
    """Why the disk may be another one than that of the last point: a bitmap does not say to which disk it belongs."""
    if disk.serial != parent.serial:
        return f"the serial of the disk was {parent.serial}, and is {disk.serial} now"
    files = earlier.own_files(disk.target)
    if files and not files.intersection(disk.source_files):
        return f"the disk was in {', '.join(sorted(files))}, and is in other files now"
    return None


def _increment(disk: DiskNow, parent: DiskOfPoint) -> tuple[DiskLevel, str]:
    if disk.source_format != "qcow2":
        return DiskLevel.content, f"a disk of the format {disk.source_format} has no bitmaps: its blocks are compared with the last point"
    if parent.source_format != "qcow2":
        return DiskLevel.content, f"the last point was taken of a disk of the format {parent.source_format}, which had no bitmap"
    if parent.checkpoint is None:
        return DiskLevel.content, "the last point has no checkpoint, as one is only made of a domain that runs"
    state = disk.bitmap or BitmapState.absent
    if state is BitmapState.whole:
        return DiskLevel.bitmap, "the bitmap of the last point is whole"
    return DiskLevel.full, _WHY_NOT[state] + (f" ({disk.detail})" if disk.detail else "")


def must_be_incremental(domain: str, asked: Level, decisions: Sequence[Decision]) -> None:
    """Raises LevelImpossible if the caller asked for an increment, and a disk can only be copied in full."""
    for decision in decisions:
        if asked is Level.incremental and decision.level is DiskLevel.full:
            raise LevelImpossible(domain=domain, disk=decision.target, reason=decision.reason)
