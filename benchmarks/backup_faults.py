"""The guest's longest fdatasync while the repository hangs or is full: with Stillpoint, with a push by virsh, with virtnbdbackup.

Each is held against the same guest, with the same load and for the same time, without a backup.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt

from benchmarks.backup_contestants import register
from benchmarks.filled_guest import FilledGuest
from benchmarks.interleaving import Numbers
from benchmarks.service_process import Client
from tests.lab.bad_storage import Storage
from tests.lab.daemon import uri
from tests.lab.places import LabError

HANGS_S = 10.0
FULL_S = 10.0
ROOM_BYTES = 20_000_000
SLOW_BYTES = 20_000_000
"""Bytes a second that the repository takes: a copy of the disk lasts some seconds, so that the fault meets it."""
END_S = 90.0
STORAGE_MB = 2_048

Fault = Callable[[Storage], None]
Begin = Callable[[Path], Callable[[], None]]
"""Begins a backup into the folder. What it answers waits for its end and clears up."""


def hangs(storage: Storage) -> None:
    with storage.hung():
        time.sleep(HANGS_S)


def is_full(storage: Storage) -> None:
    with storage.full(but_bytes=ROOM_BYTES):
        time.sleep(FULL_S)


class UnderFault:
    """One guest, one repository; every turn is a fault in the middle of a backup, or of no backup."""

    def __init__(self, guest: FilledGuest, storage: Storage, client: Client, scratch: Path) -> None:
        self.guest = guest
        self._storage = storage
        self._client = client
        self._scratch = scratch
        storage.path.chmod(0o777)
        self._repository = register(client, "bench-faults", storage.path / "repository")

    def turn(self, begin: Begin, fault: Fault) -> Numbers:
        mark = self.guest.mark()
        self.guest.disturb()
        with self._storage.slow(SLOW_BYTES), paused_seconds(self.guest) as paused:
            end = begin(self._storage.path)
            # All have frozen and thawed the guest by then, and copy.
            time.sleep(2.0)
            mark = self.guest.mark()
            fault(self._storage)
        # A guest that stands hears nothing: its owner lets it go on.
        end()
        self.guest.rest()
        self.guest.console.wait_heartbeat(60)
        beats = [beat for beat in self.guest.heartbeats(mark) if beat.writes]
        sync, write = max(beat.max_sync_ms for beat in beats), max(beat.max_ms for beat in beats)
        # Where a disk does not answer for long, the next write waits for the cache, and the fdatasync behind it for nothing more.
        return {"held_ms": max(sync, write), "sync_ms": sync, "write_ms": write, "paused_s": paused[0]}

    # --- who backs up ---------------------------------------------------------------------------

    def nobody(self, _folder: Path) -> Callable[[], None]:
        return lambda: None

    def stillpoint(self, _folder: Path) -> Callable[[], None]:
        self._client.wait_domain(self.guest.name)
        asked = {"kind": "backup", "domain": self.guest.name, "repository": self._repository, "level": "full"}
        job = self._client.post("/api/v1/jobs", asked)

        def end() -> None:
            self._client.post(f"/api/v1/jobs/{job['id']}/cancel", {}, (200, 202, 409))
            self._client.wait_job(job, END_S)
            for folder in (self._storage.path / "repository" / "domains").glob("*/*"):
                shutil.rmtree(folder)

        return end

    def virsh(self, folder: Path) -> Callable[[], None]:
        """A push into the repository: the way of `virsh backup-begin` that needs no further program."""
        target = folder / "pushed.qcow2"
        disk = f"<disk name='vda' type='file'><target file='{target}'/><driver type='qcow2'/></disk>"
        self.guest.domain.backupBegin(f"<domainbackup mode='push'><disks>{disk}</disks></domainbackup>", None, 0)

        def end() -> None:
            with suppress(libvirt.libvirtError):
                self.guest.domain.abortJob()
            self._go_on()
            _until(lambda: self.guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the push did not end")
            target.unlink(missing_ok=True)

        return end

    def virtnbdbackup(self, folder: Path) -> Callable[[], None]:
        target = folder / "virtnbdbackup"
        words = ["-U", uri(), "-d", self.guest.name, "-l", "copy", "-o", str(target), "-S", str(self._scratch), "-n"]
        process = subprocess.Popen(["virtnbdbackup", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end() -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()
            with suppress(libvirt.libvirtError):
                self.guest.domain.abortJob()
            self._go_on()
            shutil.rmtree(target, ignore_errors=True)

        return end

    def _go_on(self) -> None:
        if self.guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            self.guest.domain.resume()


@contextmanager
def paused_seconds(guest: FilledGuest) -> Iterator[list[float]]:
    """For how long the domain stands with an I/O error at the end of the block. Its own clock stands then, so its meter cannot tell."""
    found = [0.0]
    yield found
    state, reason = guest.domain.state()
    if (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
        found[0] = FULL_S


def turns(under: UnderFault) -> dict[str, Callable[[], Numbers]]:
    who = {"without a backup": under.nobody, "stillpoint": under.stillpoint, "virsh": under.virsh, "virtnbdbackup": under.virtnbdbackup}
    faults = {"hangs": hangs, "is full": is_full}
    return {f"{name}, repository {what}": _turn(under, begin, fault) for name, begin in who.items() for what, fault in faults.items()}


def _turn(under: UnderFault, begin: Begin, fault: Fault) -> Callable[[], Numbers]:
    return lambda: under.turn(begin, fault)


def _until(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + END_S
    while not true():
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(0.1)
