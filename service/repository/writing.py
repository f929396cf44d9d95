"""Where the blocks of a copy are written: a qcow2 behind its server, or a raw file or device."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import nbd

from service.errors import StillpointError
from service.repository.nbd_server import NbdServer, ServerFailed

#: How an error of the system on the target is told: `failures.of_repository` or `failures.of_target`.
Explained = Callable[[OSError, str | Path, str], StillpointError]


class Target(Protocol):
    """`index`: the number of the thread that calls. Raises what `Explained` says."""

    def write(self, index: int, offset: int, content: memoryview) -> None: ...

    def zero(self, index: int, offset: int, length: int) -> None:
        """Nothing of an image below shows there afterwards."""

    def finish(self) -> None:
        """What was written is on the disk."""


class ServedTarget:
    """An image that `qemu-nbd` writes. `path`: its file."""

    def __init__(self, server: NbdServer, path: Path, explained: Explained) -> None:
        self._server, self._path, self._explained = server, path, explained
        self._handles: list[Any] = server.connect()

    def write(self, index: int, offset: int, content: memoryview) -> None:
        try:
            self._handles[index].pwrite(content, offset)
        except nbd.Error as error:
            raise self._error(error) from error

    def zero(self, index: int, offset: int, length: int) -> None:
        try:
            self._handles[index].zero(length, offset)
        except nbd.Error as error:
            raise self._error(error) from error

    def finish(self) -> None:
        try:
            self._handles[0].flush()
        except nbd.Error as error:
            raise self._error(error) from error
        try:
            self._server.close()
        except ServerFailed as failed:
            raise self._explained(OSError(0, failed.reason), self._path, "writing") from failed
        sync(self._path, self._explained)

    def _error(self, error: nbd.Error) -> StillpointError:
        # The text of the library names its own function first; the number says all.
        number = int(error.errnum or 0)
        return self._explained(OSError(number, os.strerror(number) if number else str(error.string)), self._path, "writing")


class RawTarget:
    """A raw file that is new and reads as zeroes, or a block device (`must_zero`), on which zeroes are written."""

    def __init__(self, descriptor: int, path: Path, explained: Explained, *, must_zero: bool) -> None:
        self._descriptor, self._path, self._explained, self._must_zero = descriptor, path, explained, must_zero

    def write(self, index: int, offset: int, content: memoryview) -> None:
        del index
        try:
            while content:
                count = os.pwrite(self._descriptor, content, offset)
                content, offset = content[count:], offset + count
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error

    def zero(self, index: int, offset: int, length: int) -> None:
        if self._must_zero:
            self.write(index, offset, memoryview(bytes(length)))

    def finish(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error


def write_whole(path: Path, content: bytes) -> None:
    """The file is there with all of its content after the return, also after a power loss, and never with a part. Raises OSError."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(path)


def sync(path: Path, explained: Explained) -> None:
    """Wait until the disk has the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise explained(error, path, "writing") from error
