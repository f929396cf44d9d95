"""Reads the blocks of an image in several threads. Reading, computing digests and writing overlap."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import nbd

from service.repository import extents
from service.repository.extents import Block, Extent
from service.repository.images import Image, QemuImgFailed
from service.repository.mapped_image import mapped
from service.repository.nbd_server import NbdServer
from service.repository.report import Report

READERS = 3
"""Threads, each with a connection of its own. More do not help on local disks, and on a slow mount these hide its delay."""

#: The number of the thread, the block, its bytes.
Use = Callable[[int, Block, bytearray], None]


class ReadFailed(Exception):
    """The image cannot be read. `reason`: as the system or the server says."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Reader(Protocol):
    """Reads for one thread. What `read` returns is valid until the next read."""

    def read(self, block: Block) -> bytearray:
        """Raises ReadFailed or OSError."""


class ServedReader:
    """`handle`: of libnbd."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self, block: Block) -> bytearray:
        try:
            content: bytearray = self._handle.pread(block.length, block.start)
        except nbd.Error as error:
            raise ReadFailed(str(error.string)) from error
        return content


@dataclass(frozen=True)
class Opened:
    """An image that is open for reading. `data`: what may hold other bytes than zeroes."""

    size: int
    data: list[Extent]
    readers: Sequence[Reader]

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Fewer at the end of the image. Raises ReadFailed."""
        length = max(0, min(length, self.size - offset))
        if length == 0:
            return b""
        try:
            return bytes(self.readers[0].read(Block(0, 0, offset, length, ())))
        except OSError as error:
            raise ReadFailed(error.strerror or str(error)) from error


@contextmanager
def opened_image(image: Image, files: Sequence[str] | None, report: Report) -> Iterator[Opened]:
    """`files`: the files of the chain, if they may be read without a server. Raises ServerFailed, ReadFailed."""
    try:
        known = mapped(image, files, report) if files is not None else None
    except QemuImgFailed as failed:
        raise ReadFailed(failed.reason) from failed
    if known is not None:
        with known:
            yield Opened(known.size, known.data, known.readers(READERS))
        return
    with NbdServer(image, connections=READERS, report=report) as server:
        handles = server.connect([extents.ALLOCATION])
        yield Opened(handles[0].get_size(), extents.data(handles[0], report), [ServedReader(handle) for handle in handles])


class Tally:
    """Bytes done of all bytes of a step, of which the reading of one image may be a part."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            done = self.done
        self.report.progress(done, self.total)

    def add_in_pace(self, count: int) -> None:
        self.add(count)
        self.report.wait_for_pace(count)


def read_blocks(
    readers: Sequence[Reader], blocks: Iterable[Block], use: Use, tally: Tally, give_up: Callable[[], None] | None = None
) -> None:
    """Give each block to `use`. The threads take them in order. Raises the first error of any thread, after `give_up`."""
    work = _Work(iter(blocks), use, tally, give_up)
    threads = [threading.Thread(target=work.run, args=(index, reader)) for index, reader in enumerate(readers[1:], start=1)]
    for thread in threads:
        thread.start()
    work.run(0, readers[0])
    for thread in threads:
        thread.join()
    if work.error is not None:
        raise work.error


class _Work:
    def __init__(self, blocks: Iterator[Block], use: Use, tally: Tally, give_up: Callable[[], None] | None) -> None:
        self._blocks, self._use, self._tally, self._give_up = blocks, use, tally, give_up
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def run(self, index: int, reader: Reader) -> None:
        try:
            while (block := self._next()) is not None:
                try:
                    content = reader.read(block)
                except OSError as error:
                    raise ReadFailed(error.strerror or str(error)) from error
                self._use(index, block, content)
                self._tally.add(block.length)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = self.error or error
            if self._give_up is not None:
                self._give_up()

    def _next(self) -> Block | None:
        with self._lock:
            if self.error is not None:
                return None
            block = next(self._blocks, None)
            if block is not None:
                self._tally.report.wait_for_pace(block.length)
            return block
