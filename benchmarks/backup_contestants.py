"""Who takes part in the benchmark of backups. Each makes a full backup, an increment after a change, and a restore of both.

What each restores is held against what the guest has written: a contestant that copies too little ends the benchmark.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import SETTLE_S
from benchmarks.contestants import merge_back as merge_snapshot
from benchmarks.filled_guest import FilledGuest
from benchmarks.interleaving import Numbers
from benchmarks.service_process import Client
from benchmarks.usage import Usage, used_by
from tests.lab.command import run
from tests.lab.daemon import uri
from tests.lab.places import LabError

CHANGED = 0.05
JOB_TIMEOUT_S = 900.0
POLL_S = 0.02
COMMAND_TIMEOUT_S = 900
GIB = 1 << 30


class Stillpoint:
    """Jobs over HTTP with nothing but defaults. A backup counts until its point is sealed."""

    def __init__(self, guest: FilledGuest, client: Client, scratch: Path, service_pid: int) -> None:
        self.guest = guest
        self._client = client
        self._scratch = scratch
        self.service_pid = service_pid
        self.repository = register(client, f"bench-{guest.name}", scratch / f"repository-{guest.name}")

    def turn(self, chance: random.Random) -> Numbers:
        self._client.wait_domain(self.guest.name)
        _full, numbers = self._backup("full", "full")
        self.guest.change(round(self.guest.data_mb * CHANGED), chance)
        point, more = self._backup("auto", "inc")
        target = self._scratch / "restored"
        target.mkdir()
        began = time.monotonic()
        self.job({"kind": "restore", "recovery_point": point, "mode": "files", "folder": str(target)})
        numbers |= {**more, "restore_s": time.monotonic() - began}
        self.guest.must_be_in(restored_disk(target), self._scratch)
        shutil.rmtree(target)
        return numbers

    def snapshot(self) -> Numbers:
        """The same freeze without a copy: what the stall of a backup is held against."""
        self._client.wait_domain(self.guest.name)
        mark = self.guest.mark()
        job = self.job({"kind": "snapshot", "domain": self.guest.name})
        numbers = {"stall_ms": stall(self.guest, mark), **_window(job)}
        merge_snapshot(self.guest)
        return numbers

    def job(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self._client.wait_job(self._client.post("/api/v1/jobs", body), JOB_TIMEOUT_S, POLL_S)
        if job["state"] != "succeeded":
            raise LabError(f"Stillpoint's {body['kind']} ended {job['state']}: {job['error']}")
        return job

    def back_up(self, level: str, **more: Any) -> dict[str, Any]:
        return self.job({"kind": "backup", "domain": self.guest.name, "repository": self.repository, "level": level, **more})

    def _backup(self, level: str, name: str) -> tuple[str, Numbers]:
        mark, began = self.guest.mark(), time.monotonic()
        with used_by(self.service_pid) as usage:
            job = self.back_up(level)
        whole = time.monotonic() - began
        after_seal = _phases(job, "merge")
        disks = job["result"]["backup"]["disks"]
        copied = sum(disk["copied_bytes"] for disk in disks)
        if [disk["level"] for disk in disks] != (["full"] if level == "full" else ["bitmap"]):
            raise LabError(f"Stillpoint made another level than {level}: {disks}")
        _must_be_enough(copied, self.guest, level)
        return job["recovery_point"]["id"], {
            f"{name}_s": whole - after_seal,
            f"{name}_whole_s": whole,
            f"{name}_copy_s": _phases(job, "transfer", "compare", "seal"),
            f"{name}_stall_ms": stall(self.guest, mark),
            **{f"{name}_{what}": value for what, value in _window(job).items()},
            **_used(name, usage, copied),
        }


class Virtnbdbackup:
    """With its defaults: a checkpoint, a pull backup through a scratch file."""

    def __init__(self, guest: FilledGuest, scratch: Path) -> None:
        self.guest = guest
        self._scratch = scratch
        self._target = scratch / "virtnbdbackup"

    def turn(self, chance: random.Random) -> Numbers:
        shutil.rmtree(self._target, ignore_errors=True)
        numbers = self._backup("full")
        changed_mb = round(self.guest.data_mb * CHANGED)
        self.guest.change(changed_mb, chance)
        numbers |= self._backup("inc")
        target = self._scratch / "virtnbdrestored"
        began = time.monotonic()
        _command(["virtnbdrestore", "-U", uri(), "-i", str(self._target), "-o", str(target), "-n"])
        numbers |= {"restore_s": time.monotonic() - began}
        self.guest.must_be_in(restored_disk(target), self._scratch)
        shutil.rmtree(target)
        self.forget()
        return numbers

    def large(self) -> Numbers:
        """A full copy of disks of which not all have a file system."""
        # The last turn of another guest has left its backup there.
        shutil.rmtree(self._target, ignore_errors=True)
        usage, began = Usage(), time.monotonic()
        self.back_up("copy", usage)
        copied = self._stored_bytes()
        numbers = {"seconds": time.monotonic() - began, "rss_mb": usage.rss_mb, "pss_mb": usage.pss_mb, "copied_gib": copied / GIB}
        shutil.rmtree(self._target)
        return {**numbers, "cpu_s_per_gib": usage.cpu_s / (copied / GIB)}

    def back_up(self, level: str, usage: Usage) -> None:
        words = ["-U", uri(), "-d", self.guest.name, "-l", level, "-o", str(self._target), "-S", str(self._scratch), "-n"]
        printed = _command(["virtnbdbackup", *words], usage)
        if "Freezed" not in printed or "Thawed" not in printed:
            raise LabError(f"virtnbdbackup did not freeze the guest:\n{printed[-2000:]}")

    def _stored_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._target.glob("*.data"))

    def forget(self) -> None:
        """Its checkpoints, so that the next full backup begins as the first one did."""
        for checkpoint in self.guest.domain.listAllCheckpoints():
            checkpoint.delete()

    def _backup(self, level: str) -> Numbers:
        mark, began, before, usage = self.guest.mark(), time.monotonic(), self._stored_bytes(), Usage()
        self.back_up(level, usage)
        whole = time.monotonic() - began
        copied = self._stored_bytes() - before
        _must_be_enough(copied, self.guest, level)
        return {f"{level}_s": whole, f"{level}_stall_ms": stall(self.guest, mark), **_used(level, usage, copied)}


class Convert:
    """`qemu-img convert` of the disk in use: no freeze, no checksum, no point in time. The least that a copy costs."""

    def __init__(self, guest: FilledGuest, scratch: Path) -> None:
        self.guest = guest
        self._target = scratch / "converted.qcow2"

    def turn(self) -> Numbers:
        source = self.guest.active_sources()["vda"]
        began = time.monotonic()
        run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", source, self._target], timeout=COMMAND_TIMEOUT_S)
        run(["sync", self._target])
        numbers = {"full_s": time.monotonic() - began}
        _must_be_enough(self._target.stat().st_size, self.guest, "full")
        self._target.unlink()
        return numbers


def resumed(guest: FilledGuest, turn: Callable[[], Numbers]) -> Numbers:
    """The guest is paused while others have their turn."""
    guest.domain.resume()
    time.sleep(SETTLE_S)
    try:
        return turn()
    finally:
        guest.domain.suspend()


def register(client: Client, name: str, path: Path) -> str:
    """The id of the repository, as soon as the worker has made it."""
    path.mkdir()
    path.chmod(0o755)
    repository = str(client.post("/api/v1/repositories", {"name": name, "path": str(path)}, (201, 202))["id"])
    deadline = time.monotonic() + 60
    while (found := client.get(f"/api/v1/repositories/{repository}"))["state"] != "ready":
        if time.monotonic() > deadline:
            raise LabError(f"the repository is not ready: {found}")
        time.sleep(0.1)
    return str(found["id"])


def stall(guest: FilledGuest, mark: int) -> float:
    """The longest write or fdatasync since the mark. Every job of a backup freezes, so that there is one."""
    guest.console.wait_heartbeat(60)
    stalls = guest.stalls(mark)
    if not stalls:
        raise LabError(f"{guest.name} was not held at all")
    return max(one.ms for one in stalls)


def restored_disk(folder: Path) -> Path:
    (disk,) = (file for file in folder.iterdir() if "vda" in file.name and file.suffix != ".xml")
    return disk


def _must_be_enough(copied_bytes: int, guest: FilledGuest, level: str) -> None:
    least = (guest.data_mb if level == "full" else round(guest.data_mb * CHANGED)) << 20
    if copied_bytes < least:
        raise LabError(f"{copied_bytes} bytes were copied of {guest.name}, and {least} bytes must be")


def _phases(job: dict[str, Any], *names: str) -> float:
    """Seconds."""
    return sum(phase["duration_ms"] or 0.0 for phase in job["phases"] if phase["name"] in names) / 1000


def _window(job: dict[str, Any]) -> Numbers:
    return {name: job["timing"][name] for name in ("freeze_ms", "point_in_time_ms", "thaw_ms")}


def _used(name: str, usage: Usage, copied_bytes: int) -> Numbers:
    return {f"{name}_cpu_s_per_gib": usage.cpu_s / (copied_bytes / GIB), f"{name}_rss_mb": usage.rss_mb}


def _command(command: Sequence[str], usage: Usage | None = None) -> str:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with used_by(process.pid) as seen:
        printed, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
    if usage is not None:
        vars(usage).update(vars(seen))
    if process.returncode != 0:
        raise LabError(f"{command[0]} failed with {process.returncode}: {printed[-2000:]}")
    return printed
