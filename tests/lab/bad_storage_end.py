"""Takes a disk of bad_storage.py apart as soon as nobody holds its standard input open: `bad_storage_end.py FOLDER`."""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.lab.command import run
from tests.lab.namespaces import libvirt_pids, ways_into
from tests.lab.places import LabError

_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Parts:
    """Where everything of one disk is."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "image.raw"

    @property
    def shown(self) -> Path:
        return self.folder / "shown.raw"

    @property
    def mount(self) -> Path:
        return self.folder / "disk"

    @property
    def server(self) -> Path:
        return self.folder / "server.pid"


def take_apart(parts: Parts) -> None:
    """Whoever still waits for the disk gets an error in the end."""
    _send(parts, signal.SIGCONT)
    _tried("fsfreeze", "--unfreeze", str(parts.mount))
    with ways_into(libvirt_pids()) as ways:
        for way in [[], *ways]:
            while _tried(*way, "umount", "--lazy", str(parts.mount)):
                pass
    for line in run(["losetup", "--associated", parts.shown]).splitlines():
        _tried("losetup", "--detach", line.split(":")[0])
    # Until its last user has closed its files, the loop device stays; without its server it cannot keep anybody waiting.
    _until_gone(parts, 3.0 if parts.mount.exists() else 0.0)
    _send(parts, signal.SIGKILL)
    _tried("umount", "--lazy", str(parts.shown))
    shutil.rmtree(parts.folder)


def _until_gone(parts: Parts, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while run(["losetup", "--associated", parts.shown]).strip() and time.monotonic() < deadline:
        time.sleep(0.02)


def _send(parts: Parts, number: signal.Signals) -> None:
    with suppress(OSError, ValueError):
        pid = int(parts.server.read_text())
        # The number may belong to another process by now.
        if os.fsencode(parts.shown) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, number)


def _tried(*command: str) -> bool:
    try:
        run(command)
    except LabError:
        return False
    return True


def main() -> None:
    # Whoever ends a whole group of processes does not end this one before its work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    parts = Parts(Path(sys.argv[1]))
    if parts.folder.exists():
        take_apart(parts)


if __name__ == "__main__":
    main()
