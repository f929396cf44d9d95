"""Who takes part in the write stall: each takes a point in time of a running guest, frozen by its agent."""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import libvirt

from benchmarks.floor import FloorGuest
from benchmarks.interleaving import Numbers
from benchmarks.service_process import Client
from tests.lab.console import Console
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.lab.places import LabError

SETTLE_S = 1.0
"""After a guest was resumed: libvirt's events are dealt with and its timers have caught up before anything is measured."""
MERGE_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120


class Contestant(Protocol):
    """`take` is measured; the rest prepares it, or puts the disk back on the file that it was on."""

    @property
    def console(self) -> Console: ...

    def resume(self) -> None: ...

    def prepare(self) -> None: ...

    def take(self) -> Numbers: ...

    def restore(self) -> None: ...

    def pause(self) -> None: ...


def turn(contestant: Contestant, load: Callable[[], None] | None = None) -> Numbers:
    """One measured point in time: what the guest saw, and what the contestant says about it."""
    contestant.resume()
    time.sleep(SETTLE_S)
    contestant.prepare()
    mark = contestant.console.mark()
    if load is not None:
        load()
        # The load itself may hold writes for a moment; only what comes after it counts.
        mark = contestant.console.mark()
    started = time.monotonic()
    said = contestant.take()
    took = (time.monotonic() - started) * 1000
    contestant.console.wait_heartbeat(60)
    stalls = contestant.console.stalls(mark)
    contestant.restore()
    contestant.pause()
    if not stalls:
        raise LabError(f"{type(contestant).__name__} did not hold the guest at all")
    return {"stall_ms": max(stall.ms for stall in stalls), "stalls": float(len(stalls)), "whole_ms": took, **said}


class _OnLabGuest:
    """What all that go through libvirt have in common. The guest is paused while others have their turn."""

    def __init__(self, guest: LabGuest) -> None:
        self.guest = guest
        self.console = guest.console

    def resume(self) -> None:
        self.guest.domain.resume()

    def prepare(self) -> None:
        pass

    def restore(self) -> None:
        merge_back(self.guest)

    def pause(self) -> None:
        self.guest.domain.suspend()


class Stillpoint(_OnLabGuest):
    """A job over HTTP, followed to its end, with nothing but defaults."""

    def __init__(self, guest: LabGuest, client: Client) -> None:
        super().__init__(guest)
        self._client = client

    def resume(self) -> None:
        super().resume()
        self._client.wait_domain(self.guest.name)

    def take(self) -> Numbers:
        asked = self._client.post("/api/v1/jobs", {"kind": "snapshot", "domain": self.guest.name})
        job = self._client.wait_job(asked)
        if job["state"] != "succeeded" or job["verdict"] != "filesystem":
            raise LabError(f"Stillpoint's job ended {job['state']} with verdict {job['verdict']}: {job['error']}")
        names = ("freeze_ms", "point_in_time_ms", "thaw_ms", "hold_ms", "window_ms")
        flush = (job["freeze"].get("preflush") or {}).get("duration_ms") or 0.0
        return {**{name: job["timing"][name] for name in names}, "preflush_ms": flush}


class Virsh(_OnLabGuest):
    """What most scripts do."""

    def take(self) -> Numbers:
        take_with_virsh(self.guest.name)
        return {}


class Virtnbdbackup(_OnLabGuest):
    """A full backup without a checkpoint (its level `copy`), which asks less of libvirt than one with."""

    def __init__(self, guest: LabGuest, scratch: Path) -> None:
        super().__init__(guest)
        self._target = scratch / "virtnbdbackup"
        self._scratch = scratch

    def prepare(self) -> None:
        shutil.rmtree(self._target, ignore_errors=True)

    def take(self) -> Numbers:
        words = ["-U", uri(), "-d", self.guest.name, "-l", "copy", "-o", str(self._target), "-S", str(self._scratch), "-n"]
        printed = _run(["virtnbdbackup", *words])
        if "Freezed" not in printed or "Thawed" not in printed:
            raise LabError(f"virtnbdbackup did not freeze the guest:\n{printed[-2000:]}")
        return {}


class Floor:
    """freeze, one QMP transaction, thaw."""

    def __init__(self, guest: FloorGuest) -> None:
        self.guest = guest
        self.console = guest.console
        self._overlay = Path()

    def resume(self) -> None:
        self.guest.monitor("cont")

    def prepare(self) -> None:
        self._overlay = self.guest.add_overlay()

    def take(self) -> Numbers:
        agent = self.guest.agent
        sent = time.monotonic()
        agent("guest-fsfreeze-freeze")
        frozen = time.monotonic()
        self.guest.move_to_overlay()
        moved = time.monotonic()
        agent("guest-fsfreeze-thaw")
        thawed = time.monotonic()
        spans = {"freeze_ms": frozen - sent, "point_in_time_ms": moved - frozen, "thaw_ms": thawed - moved, "window_ms": thawed - sent}
        return {name: span * 1000 for name, span in spans.items()}

    def restore(self) -> None:
        self.guest.merge_back(self._overlay)

    def pause(self) -> None:
        self.guest.monitor("stop")


def take_with_virsh(domain: str) -> None:
    """Raises LabError."""
    flags = ["--disk-only", "--atomic", "--quiesce", "--no-metadata"]
    _run(["virsh", "-q", "-c", uri(), "snapshot-create-as", domain, "bench", *flags])


def merge_back(guest: LabGuest) -> None:
    """Every disk is on the file that it was made with, and the overlays are gone."""
    for target, source in guest.active_sources().items():
        base = guest.disks[target]
        if source == base:
            continue
        guest.domain.blockCommit(target, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        _pivot(guest, target)
        source.unlink()


def _pivot(guest: LabGuest, target: str) -> None:
    """As soon as everything is copied; libvirt says so by accepting it."""
    deadline = time.monotonic() + MERGE_TIMEOUT_S
    while True:
        try:
            guest.domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE or time.monotonic() > deadline:
                raise LabError(f"{target} of {guest.name} could not be merged: {error}") from error
            time.sleep(0.02)
        else:
            return


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise LabError(f"{command[0]} failed with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr
