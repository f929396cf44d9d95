"""Where the blocks of a copy are written: a qcow2 behind its server, or a raw file or device."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import nbd

from service.errors import StillpointError
from service.repository import durable
from service.repository.extents import Block, Extent, runs
from service.repository.nbd_server import NbdServer, ServerFailed
from service.repository.report import Report

#: How an error of the system on the target is told: `failures.of_repository` or `failures.of_target`.
Explained = Callable[[OSError, str | Path, str], StillpointError]


class Target(Protocol):
    """Takes blocks from several threads, in any order. Raises what `Explained` says."""

    def put(self, index: int, block: Block, content: bytearray) -> int:
        """Write the pieces of the block. Returns the bytes that were not zeroes. `index`: the number of the thread."""

    def finish(self, report: Report) -> str | None:
        """What was written is on the disk. Returns the SHA-256 of the stored bytes, in hex, where it is known."""

    def give_up(self) -> None:
        """Another thread met an error."""


class ServedTarget:
    """An image that `qemu-nbd` writes. `path`: its file. `zeroes`: extents that hide what the image below holds."""

    def __init__(self, server: NbdServer, path: Path, explained: Explained, zeroes: Sequence[Extent] = ()) -> None:
        self._server, self._path, self._explained = server, path, explained
        self._handles: list[Any] = server.connect()
        for start, end in zeroes:
            self._zero(0, start, end)

    def put(self, index: int, block: Block, content: bytearray) -> int:
        view, written = memoryview(content), 0
        for start, end, is_zero in runs(content, block):
            if is_zero:
                self._zero(index, start, end)
            else:
                with self._errors():
                    self._handles[index].pwrite(view[start - block.start : end - block.start], start)
                written += end - start
        return written

    def _zero(self, index: int, start: int, end: int) -> None:
        with self._errors():
            for position in range(start, end, _ZERO_BYTES):
                self._handles[index].zero(min(_ZERO_BYTES, end - position), position)

    def finish(self, report: Report) -> None:
        with self._errors():
            self._handles[0].flush()
            self._server.close()
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                durable.sync(descriptor, report)
            finally:
                os.close(descriptor)

    def give_up(self) -> None:
        """No thread waits for another."""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except nbd.Error as error:
            # The text of the library names its own function first; the number says all.
            number = int(error.errnum or 0)
            plain = OSError(number, os.strerror(number) if number else str(error.string))
            raise self._explained(plain, self._path, "writing") from error
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error
        except ServerFailed as failed:
            raise self._explained(OSError(0, failed.reason), self._path, "writing") from failed


_ZERO_BYTES = 1 << 30
"""Bytes that one request makes zeroes. The protocol's own limit is 4 GiB - 1."""


class RawTarget:
    """A raw file that is new and reads as zeroes, or a block device (`must_zero`), on which zeroes are written."""

    def __init__(self, descriptor: int, path: Path, explained: Explained, *, must_zero: bool) -> None:
        self._descriptor, self._path, self._explained, self._must_zero = descriptor, path, explained, must_zero

    def put(self, index: int, block: Block, content: bytearray) -> int:
        del index
        view, written = memoryview(content), 0
        for start, end, is_zero in runs(content, block):
            if not is_zero or self._must_zero:
                self._write(view[start - block.start : end - block.start], start)
                written += end - start
        return written

    def _write(self, content: memoryview, offset: int) -> None:
        try:
            while content:
                count = os.pwrite(self._descriptor, content, offset)
                content, offset = content[count:], offset + count
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error

    def finish(self, report: Report) -> None:
        try:
            durable.sync(self._descriptor, report)
        except OSError as error:
            raise self._explained(error, self._path, "writing") from error

    def give_up(self) -> None:
        """No thread waits for another."""
