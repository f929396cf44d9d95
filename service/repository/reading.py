"""Reads the blocks of an image through its server, in several threads. Reading, computing digests and writing overlap."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nbd

from service.repository.extents import Block
from service.repository.report import Report

READERS = 4
"""Threads, each with a connection of its own. More do not help on local disks, and on a slow mount these hide its delay."""

#: The number of the thread, the block, its bytes.
Use = Callable[[int, Block, bytearray], None]


class ReadFailed(Exception):
    """The server cannot read. `number`: errno, as far as the protocol has it."""

    def __init__(self, error: nbd.Error) -> None:
        self.number, self.reason = int(error.errnum or 0), str(error.string)
        super().__init__(self.reason)


class Tally:
    """Bytes done of all bytes of a step, of which the reading of one image may be a part."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def add(self, count: int) -> None:
        self.done += count
        self.report.progress(self.done, self.total)


def read_blocks(handles: list[Any], blocks: Iterable[Block], use: Use, tally: Tally) -> None:
    """Give each block to `use`, in any order. Raises the first error of any thread: ReadFailed, or what `use` raises."""
    work = _Work(iter(blocks), use, tally)
    threads = [threading.Thread(target=work.run, args=(index, handle)) for index, handle in enumerate(handles[1:], start=1)]
    for thread in threads:
        thread.start()
    work.run(0, handles[0])
    for thread in threads:
        thread.join()
    if work.error is not None:
        raise work.error


class _Work:
    def __init__(self, blocks: Iterator[Block], use: Use, tally: Tally) -> None:
        self._blocks, self._use, self._tally = blocks, use, tally
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def run(self, index: int, handle: Any) -> None:
        try:
            while (block := self._next()) is not None:
                try:
                    content = handle.pread(block.length, block.start)
                except nbd.Error as error:
                    raise ReadFailed(error) from error
                self._use(index, block, content)
                with self._lock:
                    self._tally.add(block.length)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = self.error or error

    def _next(self) -> Block | None:
        with self._lock:
            if self.error is not None:
                return None
            block = next(self._blocks, None)
            if block is not None:
                self._tally.report.wait_for_pace(block.length)
            return block
