"""Finds good copies of blocks by their digests: elsewhere in the repository, or on the disk of the guest that was backed up.

Where a digest list or a live disk only seems to have a block, the bytes that are read there have another digest, and are not taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import ForeignEntry, KeyUnusable, PointDamaged, PointIncomplete, StillpointError
from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import BLOCK_BYTES
from service.repository import stored_chain
from service.repository.digests import DIGEST_BYTES, Digests, digest, digest_of_zeroes
from service.repository.images import Image
from service.repository.nbd_server import ServerFailed
from service.repository.reading import Opened, ReadFailed, opened_image
from service.repository.report import Report
from service.repository.stored_disk import opened, stored_digests

MAX_TRIES = 8
"""Places that are read for one block of one disk. If none of them has it, the next disk is looked at."""
_NOT_READABLE = (PointDamaged, PointIncomplete, ForeignEntry, KeyUnusable)

#: The number of a block, and its bytes as they were sealed.
Take = Callable[[int, bytes], None]


@dataclass(frozen=True)
class StoredDisk:
    """A disk of a sealed point. `folder`: of the point."""

    folder: str
    manifest: Manifest
    disk: DiskOfPoint


@dataclass(frozen=True)
class LiveDisk:
    """The file of a disk of a domain of this host, which may write to it."""

    file: str
    format: str


@dataclass
class Missing:
    """The blocks that are still to be found: by digest their numbers. `sources`: how many blocks each place gave."""

    blocks: dict[bytes, list[int]]
    take: Take
    size: int
    sources: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, numbers: Sequence[int], digests: Digests, take: Take) -> "Missing":
        blocks: dict[bytes, list[int]] = {}
        for number in numbers:
            blocks.setdefault(digests[number], []).append(number)
        return cls(blocks, take, digests.size)

    @property
    def count(self) -> int:
        return sum(len(numbers) for numbers in self.blocks.values())

    def offer(self, content: bytes) -> int:
        """Take a block if it is one of those. Returns how many blocks it was good for."""
        numbers = self.blocks.pop(digest(content), [])
        for number in numbers:
            self.take(number, content)
        return len(numbers)

    def note(self, count: int, place: Mapping[str, Any]) -> None:
        if count:
            self.sources.append({**place, "blocks": count})


def search(repository: str, missing: Missing, disks: Sequence[StoredDisk], live: Sequence[LiveDisk], report: Report) -> None:
    """`disks`: where to look, in this order. Ends when nothing is missing, or there is no other place. Raises errors of the storage."""
    missing.note(_zeroes(missing), {"source": "zeroes"})
    for stored in disks:
        if not missing.blocks:
            return
        with suppress(*_NOT_READABLE):
            _from_stored(repository, missing, stored, report)
        report.alive()
    for disk in live:
        if missing.blocks:
            _from_live(missing, disk, report)


def _zeroes(missing: Missing) -> int:
    """The last block of a disk may be shorter."""
    lengths = {BLOCK_BYTES, missing.size % BLOCK_BYTES} - {0}
    return sum(missing.offer(bytes(length)) for length in lengths if digest_of_zeroes(length) in missing.blocks)


def _from_stored(repository: str, missing: Missing, stored: StoredDisk, report: Report) -> None:
    disk = stored.disk
    digests = stored_digests(repository, stored.folder, disk.blocks_file, disk.virtual_size)
    places = dict(_places(digests, missing.blocks))
    if not places:
        return
    chain = stored_chain.chain(repository, stored.folder, disk.file)
    before = missing.count
    while places:
        unreadable: list[bytes] = []
        # QEMU may end the connection after an error. So the image is opened again for the rest.
        with suppress(PointDamaged), opened(chain, disk.virtual_size, report, is_encrypted=disk.is_encrypted) as image:
            _read(missing, image, places, unreadable, report)
        places = {each: numbers for each, numbers in places.items() if each in missing.blocks and each not in unreadable}
        if not unreadable:
            break
    place = {"source": "point", "recovery_point": stored.manifest.point_id, "file": f"{stored.folder}/{disk.file}"}
    missing.note(before - missing.count, place)


def _places(digests: Digests, wanted: Mapping[bytes, Any]) -> Iterator[tuple[bytes, list[int]]]:
    """Where the disk has the wanted blocks, as its digests say."""
    content = digests.as_bytes()
    for each in wanted:
        numbers: list[int] = []
        at = content.find(each)
        while at >= 0 and len(numbers) < MAX_TRIES:
            if at % DIGEST_BYTES == 0:
                numbers.append(at // DIGEST_BYTES)
            at = content.find(each, at + 1)
        if numbers:
            yield each, numbers


def _read(missing: Missing, image: Opened, places: Mapping[bytes, Sequence[int]], unreadable: list[bytes], report: Report) -> None:
    """Raises ReadFailed at the first block that cannot be read, which is in `unreadable` then."""
    for each, numbers in places.items():
        for number in numbers:
            if each not in missing.blocks:
                break
            report.wait_for_pace(BLOCK_BYTES)
            try:
                missing.offer(image.bytes_at(number * BLOCK_BYTES, BLOCK_BYTES))
            except ReadFailed:
                unreadable.append(each)
                raise
            report.alive()


def _from_live(missing: Missing, disk: LiveDisk, report: Report) -> None:
    """What the guest has not written since is at the same place. What it writes now has another digest."""
    numbers = [(number, each) for each, several in missing.blocks.items() for number in several]
    count = 0
    try:
        with opened_image(Image(disk.file, disk.format, is_in_use=True), None, report) as image:
            for number, each in numbers:
                report.wait_for_pace(BLOCK_BYTES)
                if each in missing.blocks:
                    count += missing.offer(image.bytes_at(number * BLOCK_BYTES, BLOCK_BYTES))
                report.alive()
    except (ServerFailed, ReadFailed, OSError, StillpointError):
        # The disk is not a part of the repository. Without it there is one place less.
        pass
    missing.note(count, {"source": "live_disk", "file": str(Path(disk.file))})
