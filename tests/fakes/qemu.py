"""The QEMU of a fake domain, as its host sees it: a process with the domain's UUID that has files open, or the locks of such a process."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from service.disks.image_lock import _FLOCK as FLOCK
from tests.fakes.domain import FakeDomain

_PROGRAM = """
import sys
files = [open(path, mode) for path, mode in zip(sys.argv[3::2], sys.argv[4::2])]
print("open", flush=True)
sys.stdin.read()
"""
_READS, _WRITES = 100, 101


class FakeQemu:
    """`is_seen` False: its process is of another user or container, and only the locks of its images are there."""

    def __init__(self, domain: FakeDomain, *, is_seen: bool = True) -> None:
        self._domain = domain
        self._is_seen = is_seen
        self._process: subprocess.Popen[str] | None = None
        self._locked: list[int] = []

    def __enter__(self) -> "FakeQemu":
        self.has_open({self._domain.source(disk.target): True for disk in self._domain.disks})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ends()

    def has_open(self, files: Mapping[str, bool]) -> None:
        """These files and no others; True: for writing."""
        self.ends()
        if self._is_seen:
            self._start(files)
        else:
            self._locked = [lock(path, is_written=is_written) for path, is_written in files.items()]

    def switches(self, moves: Mapping[str, str]) -> None:
        """Every disk to its overlay; the files below are opened anew for reading."""
        below = {self._domain.source(target): False for target in moves}
        self.has_open({**below, **dict.fromkeys(moves.values(), True)})

    def ends(self) -> None:
        for descriptor in self._locked:
            os.close(descriptor)
        self._locked = []
        if self._process is not None:
            with self._process:
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._process = None

    def _start(self, files: Mapping[str, bool]) -> None:
        arguments = [part for path, is_written in files.items() for part in (path, "r+b" if is_written else "rb")]
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, "-uuid", self._domain.uuid(), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"


def lock(path: str, *, is_written: bool) -> int:
    """As QEMU does it; until the answered descriptor is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    for byte in (_READS, _WRITES) if is_written else (_READS,):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    return descriptor


def guest_writes(overlay: str | Path) -> None:
    """A guest wrote into the overlay."""
    image = f'json:{{"driver": "qcow2", "backing": null, "file": {{"driver": "file", "locking": "off", "filename": "{overlay}"}}}}'
    subprocess.run(["qemu-io", "-c", "write 0 64k", image], check=True, capture_output=True)
