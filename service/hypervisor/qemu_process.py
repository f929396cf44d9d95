"""The QEMU process of a running domain, as /proc shows it: its user, its open files, and the files that it sees."""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_WRITES = os.O_WRONLY | os.O_RDWR
_FILE_SYSTEM_UID = 4
"""The position of the user id for opening files in the four numbers after `Uid:`."""


@dataclass(frozen=True)
class Credentials:
    """The user and groups of a process. `has_rights_of_root`: the rights of folders and files do not stop the process."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    has_rights_of_root: bool = False

    def __str__(self) -> str:
        try:
            return f"{pwd.getpwuid(self.uid).pw_name} ({self.uid}:{self.gid})"
        except KeyError:
            return f"user {self.uid}:{self.gid}"


class OpenFile(NamedTuple):
    """`name`: ends with ` (deleted)` if the file was deleted. `link`: opens the file under any name, also a deleted file."""

    name: str
    status: os.stat_result
    #: Open for writing. QEMU opens a file again, for reading only, when a snapshot puts the file below an overlay.
    is_written: bool
    link: Path


@dataclass(frozen=True)
class QemuProcess:
    pid: int
    credentials: Credentials

    @property
    def root(self) -> Path:
        """The folder that this process sees as `/`. A reader needs the right to trace the process."""
        return PROC / str(self.pid) / "root"

    def seen(self, path: str) -> os.stat_result:
        """The file that the process sees under `path`. Raises OSError."""
        return (self.root / path.lstrip("/")).stat()

    def may_be_looked_through(self) -> bool:
        try:
            self.root.stat()
        except OSError:
            return False
        return True

    def open_files(self) -> list[OpenFile] | None:
        """None: the worker may not look, or the process has ended."""
        folder = PROC / str(self.pid)
        try:
            links = list((folder / "fd").iterdir())
        except OSError:
            return None
        return list(_files(folder, links))


def _files(process: Path, links: list[Path]) -> Iterator[OpenFile]:
    for link in links:
        # The process may have closed the file meanwhile.
        with suppress(OSError):
            name = str(link.readlink())
            yield OpenFile(name, link.stat(), is_open_for_writing((process / "fdinfo" / link.name).read_text()), link)


def is_open_for_writing(fdinfo: str) -> bool:
    """`fdinfo`: the text that /proc has of an open file."""
    flags = next(line.partition(":")[2] for line in fdinfo.splitlines() if line.startswith("flags:"))
    return bool(int(flags, 8) & _WRITES)


def find(uuid: str, uid: int | None = None) -> QemuProcess | None:
    """The QEMU of the domain. None: the worker cannot see it (another pid namespace, another host, hidepid).

    `uid`: the user that the process must run as, if libvirt says so. Any user may start a program with such arguments.
    """
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if b"-uuid" in arguments and arguments[arguments.index(b"-uuid") + 1] == uuid.encode():
                credentials = _credentials((entry / "status").read_text())
                if uid is None or credentials.uid == uid:
                    return QemuProcess(int(entry.name), credentials)
    return None


_CAP_DAC_OVERRIDE = 1


def _credentials(status: str) -> Credentials:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Credentials(
        uid=int(fields["Uid"].split()[_FILE_SYSTEM_UID - 1]),
        gid=int(fields["Gid"].split()[_FILE_SYSTEM_UID - 1]),
        groups=tuple(int(group) for group in fields["Groups"].split()),
        has_rights_of_root=bool(int(fields["CapEff"], 16) >> _CAP_DAC_OVERRIDE & 1),
    )
