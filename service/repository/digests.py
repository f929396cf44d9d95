"""The digests of a disk's content: SHA-256 of each block of BLOCK_BYTES that the guest sees, 32 bytes each, one after the other."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Self

from service.model.repository import BLOCK_BYTES
from service.repository.extents import Extent, block_count

DIGEST_BYTES = 32
"""Bytes of one SHA-256."""


def digest(block: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(block).digest()


@cache
def digest_of_zeroes(length: int) -> bytes:
    return digest(bytes(length))


class Digests:
    """The digests of one disk. At first all blocks are zeroes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._all = bytearray(digest_of_zeroes(BLOCK_BYTES) * block_count(size))
        if size % BLOCK_BYTES:
            self[block_count(size) - 1] = digest_of_zeroes(size % BLOCK_BYTES)

    @classmethod
    def of_file(cls, path: Path, size: int) -> Self:
        """Raises OSError, and ValueError if the file is not as long as a disk of `size` bytes requires."""
        digests = cls(size)
        stored = path.read_bytes()
        if len(stored) != len(digests):
            raise ValueError(f"it has {len(stored)} bytes, and a disk of {size} bytes has {len(digests)} bytes of digests")
        digests._all[:] = stored
        return digests

    def take(self, older: "Digests") -> None:
        """Take the digests of the same disk at an earlier time."""
        common = older._common_blocks(self.size) * DIGEST_BYTES
        self._all[:common] = older._all[:common]

    def unknown_to_size(self, size: int) -> list[Extent]:
        """The end of a disk of `size` bytes, from the first block that this one does not have in the same length."""
        start = self._common_blocks(size) * BLOCK_BYTES
        return [(start, size)] if start < size else []

    def of_block(self, block: int, length: int) -> bytes | None:
        """The digest of a block as a disk with `length` bytes there shows this one. Zeroes follow its end. None: not known."""
        start = block * BLOCK_BYTES
        if start >= self.size:
            return digest_of_zeroes(length)
        return self[block] if min(BLOCK_BYTES, self.size - start) == length else None

    def _common_blocks(self, size: int) -> int:
        return block_count(size) if size == self.size else min(size, self.size) // BLOCK_BYTES

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, block: int) -> bytes:
        return bytes(self._all[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES])

    def __setitem__(self, block: int, value: bytes) -> None:
        self._all[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES] = value

    def not_zeroes(self) -> list[int]:
        """The blocks that hold anything."""
        return self.differing(Digests(self.size))

    def not_those_of(self, older: "Digests") -> list[int]:
        """The blocks that `older` has otherwise, or not at all."""
        lengths = ((block, min(BLOCK_BYTES, self.size - block * BLOCK_BYTES)) for block in range(block_count(self.size)))
        return [block for block, length in lengths if older.of_block(block, length) != self[block]]

    def differing(self, other: "Digests") -> list[int]:
        """The blocks that are different, both disks having the same size."""
        if self._all == other._all:
            return []
        return [block for block in range(block_count(self.size)) if self[block] != other[block]]

    def content(self) -> str:
        """One checksum for the whole disk."""
        return hashlib.sha256(self._all).hexdigest()

    def as_bytes(self) -> bytes:
        """What the file of the digests holds."""
        return bytes(self._all)
