"""What a store of objects must be able to do, whichever it is: put, get, list, head, delete and lock, each with checks."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.errors import CopyArrivedWrong, StillpointError
from service.model.copy_target import LockMode
from service.model.manifest import StoredFile
from service.repository import failures
from service.repository.report import Report

PIECE_BYTES = 1 << 20
"""Bytes of one read of a file that is sent, and of one look at the pace."""


@dataclass(frozen=True)
class Lock:
    """Until then the object must not be removed, changed or unlocked. `until`: UTC."""

    mode: LockMode
    until: datetime


@dataclass(frozen=True)
class StoredObject:
    """`checksum`: what the store says of the content, in the form that `put` of the same store returns; None: it says nothing.

    `version`: where the store keeps earlier contents, the one that is meant.
    """

    name: str
    size: int
    checksum: str | None = None
    version: str | None = None
    lock: Lock | None = None


class SourceDiffers(Exception):
    """What was read is not what was sealed. Nothing of it counts as sent."""

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256


class SourceUnreadable(Exception):
    """The repository cannot be read. `reason`: what it says. So told, no store takes it for an error of its own."""

    def __init__(self, error: StillpointError) -> None:
        super().__init__(error.detail)
        self.reason = error


class Source:
    """A file that is sent, from a descriptor that the caller closes. It is read once, from its beginning, and hashed on the way.

    `file`: what it must be, with its path as the name. `on_bytes`: called for each piece with its length.
    """

    def __init__(self, descriptor: int, file: StoredFile, on_bytes: Callable[[int], None], report: Report) -> None:
        self.shown = file.name
        self.size = file.bytes
        self.sha256 = file.sha256
        self.report = report
        self._descriptor = descriptor
        self._on_bytes = on_bytes

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Raises SourceDiffers after the last piece, so that what was not completed leaves nothing that counts; SourceUnreadable."""
        digest, offset = hashlib.sha256(), 0
        while piece := self._read(offset, min(piece_bytes, self.size - offset)):
            digest.update(piece)
            offset += len(piece)
            yield piece
        if offset != self.size or digest.hexdigest() != self.sha256:
            raise SourceDiffers(digest.hexdigest())

    def _read(self, offset: int, count: int) -> bytes:
        read = bytearray()
        while len(read) < count:
            wanted = min(PIECE_BYTES, count - len(read))
            self.report.wait_for_pace(wanted)
            try:
                piece = os.pread(self._descriptor, wanted, offset + len(read))
            except OSError as error:
                raise SourceUnreadable(failures.of_repository(error, self.shown, "reading", is_write=False)) from error
            if not piece:
                break
            read += piece
            self._on_bytes(len(piece))
        return bytes(read)

    @classmethod
    def of_text(cls, content: bytes, report: Report) -> "Source":
        """A small text, held in memory. The descriptor is closed with `close`."""
        descriptor = os.memfd_create("text", os.MFD_CLOEXEC)
        os.write(descriptor, content)
        return cls(descriptor, StoredFile("a text", len(content), hashlib.sha256(content).hexdigest()), lambda _: None, report)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


class ObjectStore(Protocol):
    """Names are paths with slashes, without the place of the copy itself.

    Every call raises CopyNotAnswering, CopyRefused, and the errors that it names.
    """

    @property
    def shown(self) -> str:
        """The store in the words of messages."""
        ...

    def put(self, name: str, source: Source, lock: Lock | None = None) -> str | None:
        """Returns the checksum that `head` must then show. An earlier object of the name is replaced, or stays as an earlier version.

        A put that is killed may leave a part of the object under its name, as rclone writes in place at some remotes: whether an object is
        whole is seen by its content alone. Raises SourceDiffers, LockNotOffered.
        """
        ...

    def head(self, name: str, version: str | None = None) -> StoredObject | None:
        """None: there is no such object."""
        ...

    def pieces(self, name: str, version: str | None = None) -> Iterator[bytes]:
        """The content. Raises FileNotFoundError."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """The names of all objects that begin so."""
        ...

    def checksum_of(self, source: Source) -> str | None:
        """What `head` should show for such a content, without sending it. None: this store shows none. Raises SourceDiffers."""
        ...

    def delete(self, name: str, version: str | None = None, *, bypass: bool = False) -> None:
        """`version`: that one, and for good. `bypass`: with the right to pass over a lock of mode governance."""
        ...

    def purge(self, prefix: str) -> int:
        """Remove all earlier contents of objects that begin so and were deleted. Returns how many the store keeps, as their locks last."""
        ...

    def lock(self, name: str, lock: Lock, version: str | None = None, *, bypass: bool = False) -> None:
        """Set the lock, which can lengthen one. Raises LockNotOffered, FileNotFoundError."""
        ...

    def close(self) -> None: ...


def verified(store: ObjectStore, file: StoredFile, checksum: str | None, report: Report) -> str:
    """Look at what arrived under the name of the file. `checksum`: what the store must show. A store that shows none is read back.

    Returns how it was verified: `checksum` or `content`. Raises CopyArrivedWrong.
    """
    there = store.head(file.name)
    if there is None:
        raise CopyArrivedWrong(copy=store.shown, name=file.name, reason="it is not there")
    if there.size != file.bytes:
        raise CopyArrivedWrong(copy=store.shown, name=file.name, reason=f"it has {there.size} bytes, and {file.bytes} were sent")
    if checksum is not None and there.checksum is not None:
        if there.checksum != checksum:
            raise CopyArrivedWrong(copy=store.shown, name=file.name, reason=f"its checksum is {there.checksum}, and {checksum} was sent")
        return "checksum"
    sha256 = sha256_of(store, file.name, report)
    if sha256 != file.sha256:
        raise CopyArrivedWrong(copy=store.shown, name=file.name, reason=f"its SHA-256 is {sha256}, and {file.sha256} was sent")
    return "content"


def sha256_of(store: ObjectStore, name: str, report: Report, version: str | None = None) -> str | None:
    """The SHA-256 of what the store gives back. None: it is not there."""
    digest = hashlib.sha256()
    try:
        for piece in store.pieces(name, version):
            report.wait_for_pace(len(piece))
            digest.update(piece)
            report.alive()
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def text_of(store: ObjectStore, name: str, limit: int) -> bytes | None:
    """A small object. None: it is not there. Raises CopyArrivedWrong: it is larger than `limit` bytes."""
    content = bytearray()
    try:
        for piece in store.pieces(name):
            content += piece
            if len(content) > limit:
                raise CopyArrivedWrong(copy=store.shown, name=name, reason=f"it has more than {limit} bytes")
    except FileNotFoundError:
        return None
    return bytes(content)


def refusal_of(error: StillpointError) -> str:
    """The code with which a store refused, in one word."""
    return str(error.facts.get("answer") or error.code)
