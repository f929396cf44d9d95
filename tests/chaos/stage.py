"""What a round of chaos plays on: a real guest that writes all the time, and Stillpoint as two processes (API and worker)."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from service.hypervisor.qemu_process import Credentials, OpenFile, QemuProcess
from tests.chaos.lying_agent import LyingAgent
from tests.chaos.lying_relay import LyingRelay
from tests.chaos.remains import GUESTS
from tests.lab import monitor
from tests.lab.command import run
from tests.lab.disks import make_ext4
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError
from tests.lab.refused_agent import start_again_if_refused
from tests.service_process import ServiceProcess

GUEST_MB = 64
STATE_MB = 128
"""Room for the database and the log of 2,000 rounds: 32 MB were full after some 730 rounds of a lane."""
MERGE_TIMEOUT_S = 60.0
PATIENCE_S = 60.0
"""Seconds: for what must come. A machine with much to do may take long."""
WORKER_RUNS = "Stillpoint's worker runs"
T = TypeVar("T")
SETTINGS = {
    "poll_seconds": "0.1",
    "inventory_seconds": "2",
    "lease_seconds": "20",
    "repository_silence_seconds": "3",
    "repository_patience_seconds": "20",
    "repository_look_seconds": "2",
}


class Stage:
    """One lane: its guest, its database, its processes. Several lanes share the host's libvirt and nothing else."""

    def __init__(self, folder: Path, number: int, pid: int) -> None:
        self.state_dir = folder / f"lane-{number}"
        self.state_dir.mkdir(parents=True)
        self.has_small_disk = _mount_small(self.state_dir)
        self.guest = LabGuest(
            GuestOptions(name=f"{GUESTS}{number}-{pid}", disk_mb=GUEST_MB, meter={"sync_every": 16, "interval_us": 10_000})
        )
        #: Where overlays may lie.
        self.overlay_folders = [self.guest.folder]
        self.relay = LyingRelay(self.state_dir, self.note)
        self.relay.open()
        self.liar = LyingAgent(self.guest, self.note)
        #: What faults and rounds of some kinds add to the lane for all of its life.
        self.at_end = ExitStack()
        #: Of the round that is played now.
        self.chance = random.Random()
        self.api = self._process("serve")
        self.worker = self._process("worker")
        self._worker_began_at = 0

    def _process(self, command: str) -> ServiceProcess:
        return ServiceProcess(self.state_dir, libvirt_uri=self.relay.uri, command=command, **SETTINGS)

    def start(self) -> "Stage":
        self.guest.start_and_wait()
        self._settle_meter()
        self.migrate()
        self.api.start()
        self.worker.start()
        until(self._is_published, 60, "the worker published no domains")
        return self

    def _settle_meter(self) -> None:
        """The meter's file is in the file system itself and no longer only in its journal, which the judge does not read."""
        self.guest.console.wait_heartbeat(15)
        self.guest.domain.fsFreeze()
        self.guest.domain.fsThaw()

    def _is_published(self) -> bool:
        return self.api.request("GET", f"/api/v1/domains/{self.guest.name}").status_code == 200

    def migrate(self) -> None:
        command = [sys.executable, "-m", "service.cli", "migrate"]
        subprocess.run(command, env=self.api.environment, check=True, capture_output=True, timeout=60)

    def close(self) -> None:
        self.worker.stop()
        self.api.stop()
        self.relay.close()
        # A guest that was started a moment ago has no agent yet. It is switched off next.
        with suppress(libvirt.libvirtError):
            self.guest.thaw_for_sure() if self.is_running() else None
        self.guest.destroy()
        self.at_end.close()
        if self.has_small_disk:
            _unmount_keeping(self.state_dir)

    def note(self, text: str) -> None:
        """What a fault really did, for whoever reads the logs of a breach."""
        # Not on the small disk, which may be full.
        with self.state_dir.with_suffix(".faults").open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {text}\n")

    # --- the service ----------------------------------------------------------------------------

    def restart_worker(self) -> None:
        """As systemd would."""
        self.worker.kill_if_alive()
        self._worker_began_at = self.worker.log_size()
        self.worker.start()

    def wait_worker(self) -> None:
        """Until the worker has opened its database: it ends by itself where it cannot, and from then on waits for one that is away."""
        until(lambda: WORKER_RUNS in self.worker.log_text(self._worker_began_at), PATIENCE_S, "the worker did not start")

    def guard_pid(self, job_id: str) -> int | None:
        """The process that guards the window of the job; None: there is none (any more)."""
        try:
            text = (self.state_dir / "guards" / f"{job_id}.json").read_text()
            return int(json.loads(text)["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def hand_pids(self) -> list[int]:
        """The processes of the worker that touch repositories and copies. What they start is not among them."""
        worker, found = self.worker.pid, []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry) == worker and _is_transfer(_command_line(entry)):
                found.append(int(entry.name))
        return found

    def keeper_pid(self) -> int | None:
        worker = self.worker.pid
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry) == worker and b"service.freeze.guard_process" in _command_line(entry):
                return int(entry.name)
        return None

    # --- the guest ------------------------------------------------------------------------------

    def is_running(self) -> bool:
        return bool(self.guest.is_defined() and self.guest.domain.isActive())

    def qemu_pid(self) -> int:
        pid = process_of_guest(self.guest.name)
        if pid is None:
            raise LabError(f"no QEMU of {self.guest.name}")
        return pid

    def revive_guest(self) -> None:
        """Running and answering again, whatever the fault did to it."""
        domain = self.guest.domain
        if domain.isActive() and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            domain.resume()
        if not domain.isActive():
            # libvirt begins the console anew with each start.
            self._start_guest()
            start_again_if_refused(self.guest, self._start_guest, self.note)
        self.guest.wait_agent()

    def _start_guest(self) -> None:
        until(lambda: _start(self.guest.domain), 10, "the guest could not be started")
        self.guest.wait_ready()

    @contextmanager
    def paused_guest(self) -> Iterator[None]:
        """Everything that QEMU had in memory of the disks is in their files."""
        self.guest.domain.suspend()
        try:
            yield
        finally:
            self.guest.domain.resume()

    def written_file(self) -> Path:
        """The file that the guest writes to, as its QEMU has it open, whatever libvirt names."""
        named = self.guest.active_sources()["vda"]
        written = [file for file in self._files_open_for_writing() if ".qcow2" in file.suffix] if self.is_running() else [named]
        return named if named in written or not written else written[0]

    def _files_open_for_writing(self) -> list[Path]:
        return [Path(file.name) for file in self.open_files() if file.is_written]

    def open_files(self) -> list[OpenFile]:
        """Of the guest's QEMU. A file that was deleted has ` (deleted)` behind its name."""
        return QemuProcess(self.qemu_pid(), Credentials(0, 0, ())).open_files() or []

    def merge_behind_libvirts_back(self) -> None:
        """As an operator would whose guest must not be shut down (docs/reliability.md): the disk is on the file that libvirt names."""
        overlay, named = self.written_file(), self.guest.active_sources()["vda"]
        monitor.merge_back(self.guest, named, overlay)
        overlay.unlink()
        self.note(f"libvirt named {named} and QEMU wrote to {overlay}: merged")

    def chain_files(self) -> list[Path]:
        """What the disk is on now, top first."""
        listing = json.loads(run(["qemu-img", "info", "--force-share", "--backing-chain", "--output=json", self.written_file()]))
        return [Path(entry["filename"]) for entry in listing]

    def merge_all(self) -> None:
        """Back to the file that the guest was made with."""
        top, base = self.guest.active_sources()["vda"], self.guest.disks["vda"]
        if top == base:
            return
        files = self.chain_files()
        self.guest.domain.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        until(self._pivot, MERGE_TIMEOUT_S, "the chain could not be merged")
        for file in files:
            if file != base:
                file.unlink(missing_ok=True)

    def _pivot(self) -> bool:
        try:
            self.guest.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                raise
            return False
        return True


def _mount_small(folder: Path) -> bool:
    """A disk of its own for the state, small enough to be filled in no time. Only root can; others go without that fault.

    ext4, which refuses writes to a file that is made immutable while it is open; tmpfs lets them pass.
    """
    if os.geteuid() != 0:
        return False
    image = folder.with_suffix(".img")
    make_ext4(image, mb=STATE_MB, label="state")
    run(["mount", "-o", "loop", image, folder])
    return True


def _unmount_keeping(folder: Path) -> None:
    """What lay on the small disk lies in the folder afterwards: logs and databases tell of a breach."""
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.copytree(folder, kept, ignore=lambda _folder, names: [name for name in names if name.endswith(".sock")])
    run(["umount", folder])
    folder.with_suffix(".img").unlink()
    folder.rmdir()
    kept.rename(folder)


def until(true: Callable[[], T], seconds: float, otherwise: str, pause: float = 0.02) -> T:
    """What was true in the end."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(pause)
    return found


def _start(domain: Any) -> bool:
    # The image's lock is released a moment after QEMU died.
    try:
        domain.create()
    except libvirt.libvirtError:
        return bool(domain.isActive())
    return True


def process_of_guest(name: str) -> int | None:
    """The QEMU of the domain; None: it does not run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and b"guest=" + name.encode() + b"," in _command_line(entry):
            return int(entry.name)
    return None


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _is_transfer(command_line: bytes) -> bool:
    return b"service.repository.hand_process" in command_line or b"service.copies.courier_process" in command_line


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None
