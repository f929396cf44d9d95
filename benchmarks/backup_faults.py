"""The guest's longest fdatasync while the repository hangs or is full: with Stillpoint, with a push by virsh, with virtnbdbackup.

Each is held against the same guest, with the same load and for the same time, without a backup. What a guest feels of the freeze before
the fault is not counted. A turn whose backup the fault did not meet is not counted, and is made again.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt

from benchmarks.backup_contestants import register
from benchmarks.filled_guest import FilledGuest
from benchmarks.interleaving import Numbers
from benchmarks.service_process import Client
from tests.lab.bad_storage import Storage
from tests.lab.command import run
from tests.lab.daemon import uri
from tests.lab.places import LabError

HANGS_S = 10.0
FULL_S = 5.0
ROOM_BYTES = 20_000_000
SLOW_BYTES = 20_000_000
"""Bytes a second that the repository takes: a copy of the disk lasts some seconds, so that the fault meets it."""
BEGIN_S = 60.0
END_S = 90.0
STORAGE_MB = 2_048
TURNS = 3
"""Tries of one turn, until the fault meets the backup in its copy."""


class NotMet(LabError):
    """The backup was not in its copy when the fault came, or for as long as it lasted."""


@dataclass(frozen=True)
class Fault:
    """`what` is a context for `seconds`. `lets_end`: a backup that meets it may end, but not well before the fault is over."""

    what: Callable[[Storage], AbstractContextManager[None]]
    seconds: float
    lets_end: bool


FAULTS = {
    "hangs": Fault(lambda storage: storage.hung(is_forgotten=False), HANGS_S, lets_end=False),
    "is full": Fault(lambda storage: storage.full(but_bytes=ROOM_BYTES), FULL_S, lets_end=True),
}


@dataclass(frozen=True)
class Backup:
    """One that was begun. `end` waits for its end, clears up, and says whether it ended well."""

    is_copying: Callable[[], bool]
    end: Callable[[], bool]


Begin = Callable[[Path], Backup]
"""Begins a backup into the folder."""


class UnderFault:
    """One guest, one repository; every turn is a fault in the middle of a backup, or of no backup."""

    def __init__(self, guest: FilledGuest, storage: Storage, client: Client, scratch: Path) -> None:
        self.guest = guest
        self._storage = storage
        self._client = client
        self._scratch = scratch
        # As a share that is mounted so: what is written waits for the storage, and not for the memory of this host.
        run(["mount", "-o", "remount,sync", storage.path])
        storage.path.chmod(0o777)
        self._repository = register(client, "bench-faults", storage.path / "repository")

    def turn(self, begin: Begin, fault: Fault) -> Numbers:
        self.guest.disturb()
        with self._storage.slow(SLOW_BYTES):
            backup = begin(self._storage.path)
            _until(backup.is_copying, "the backup did not begin to copy", BEGIN_S)
            # The freeze and the thaw are on the console by then.
            self.guest.console.wait_heartbeat(60)
            mark = self.guest.mark()
            if not backup.is_copying():
                backup.end()
                self.guest.rest()
                raise NotMet("the backup was copied before the fault")
            with fault.what(self._storage):
                time.sleep(fault.seconds)
                paused_s = _paused_s(self.guest, fault)
            has_ended = not backup.is_copying()
        if not paused_s:
            self.guest.console.wait_heartbeat(60)
            seen = self.guest.mark()
        # A guest that stands hears nothing: its owner lets it go on.
        ended_well = backup.end()
        if paused_s:
            self.guest.console.wait_heartbeat(60)
            seen = self.guest.mark()
        self.guest.rest()
        # One that waits until there is room again may end well after that.
        if has_ended and (ended_well or not fault.lets_end):
            raise NotMet("the backup ended as if there was no fault")
        return {**self._held(mark, seen), "paused_s": paused_s}

    def _held(self, mark: int, seen: int) -> Numbers:
        after = {beat.at_ms for beat in self.guest.heartbeats(seen)}
        beats = [beat for beat in self.guest.heartbeats(mark) if beat.writes and beat.at_ms not in after]
        sync, write = max(beat.max_sync_ms for beat in beats), max(beat.max_ms for beat in beats)
        # Where a disk does not answer for long, the next write waits for the cache, and the fdatasync behind it for nothing more.
        return {"held_ms": max(sync, write), "sync_ms": sync, "write_ms": write}

    # --- who backs up ---------------------------------------------------------------------------

    def nobody(self, _folder: Path) -> Backup:
        return Backup(lambda: True, lambda: False)

    def stillpoint(self, _folder: Path) -> Backup:
        self._client.wait_domain(self.guest.name)
        asked = {"kind": "backup", "domain": self.guest.name, "repository": self._repository, "level": "full"}
        job = self._client.post("/api/v1/jobs", asked)

        def is_copying() -> bool:
            found = self._client.get(f"/api/v1/jobs/{job['id']}")
            if found["state"] not in ("queued", "running", "succeeded"):
                raise LabError(f"Stillpoint's backup ended before the fault: {found['error']}")
            return bool(found["phase"] == "transfer")

        def end() -> bool:
            self._client.post(f"/api/v1/jobs/{job['id']}/cancel", {}, (200, 202, 409))
            ended = self._client.wait_job(job, END_S)
            for folder in (self._storage.path / "repository" / "domains").glob("*/*"):
                shutil.rmtree(folder)
            return bool(ended["state"] == "succeeded")

        return Backup(is_copying, end)

    def virsh(self, folder: Path) -> Backup:
        """A push into the repository: the way of `virsh backup-begin` that needs no further program."""
        target = folder / "pushed.qcow2"
        disk = f"<disk name='vda' type='file'><target file='{target}'/><driver type='qcow2'/></disk>"
        domain = self.guest.domain
        domain.backupBegin(f"<domainbackup mode='push'><disks>{disk}</disks></domainbackup>", None, 0)

        def is_copying() -> bool:
            return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)

        def end() -> bool:
            with suppress(libvirt.libvirtError):
                domain.abortJob()
            self._go_on()
            _until(lambda: not is_copying(), "the push did not end", END_S)
            target.unlink(missing_ok=True)
            return bool(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED).get("success"))

        return Backup(is_copying, end)

    def virtnbdbackup(self, folder: Path) -> Backup:
        target = folder / "virtnbdbackup"
        words = ["-U", uri(), "-d", self.guest.name, "-l", "copy", "-o", str(target), "-S", str(self._scratch), "-n"]
        process = subprocess.Popen(["virtnbdbackup", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def is_copying() -> bool:
            return process.poll() is None and any(file.stat().st_size > 0 for file in target.glob("vda*"))

        def end() -> bool:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()
            with suppress(libvirt.libvirtError):
                self.guest.domain.abortJob()
            self._go_on()
            shutil.rmtree(target, ignore_errors=True)
            return process.returncode == 0

        return Backup(is_copying, end)

    def _go_on(self) -> None:
        if self.guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            self.guest.domain.resume()


def _paused_s(guest: FilledGuest, fault: Fault) -> float:
    """Whether the domain stands with an I/O error, and would have for the whole fault. Its own clock stands then: its meter cannot tell."""
    is_paused = guest.domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
    return fault.seconds if is_paused else 0.0


def turns(under: UnderFault) -> dict[str, Callable[[], Numbers]]:
    who = {"without a backup": under.nobody, "stillpoint": under.stillpoint, "virsh": under.virsh, "virtnbdbackup": under.virtnbdbackup}
    return {
        f"{name}, repository {what}": _turn(under, f"{name}, repository {what}", begin, fault)
        for name, begin in who.items()
        for what, fault in FAULTS.items()
    }


def _turn(under: UnderFault, name: str, begin: Begin, fault: Fault) -> Callable[[], Numbers]:
    def turn() -> Numbers:
        for _ in range(TURNS - 1):
            try:
                return under.turn(begin, fault)
            except NotMet as error:
                print(f"{name}: {error}; once more", file=sys.stderr, flush=True)
        return under.turn(begin, fault)

    return turn


def _until(true: Callable[[], bool], otherwise: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(0.1)
