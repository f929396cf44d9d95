"""How long each contestant holds the writes of a guest, as the guest itself measures it on its serial console."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import interleaving
from benchmarks.contestants import Contestant, Floor, Stillpoint, Virsh, Virtnbdbackup, turn
from benchmarks.floor import FloorGuest
from benchmarks.interleaving import Course, Plan
from benchmarks.report import Report, program_version
from benchmarks.service_process import Client, ServiceProcess
from tests.lab import images, kvm
from tests.lab.daemon import Daemon, uri
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions

IDLE = GuestOptions(name="bench-idle")
FLOOR = GuestOptions(name="bench-floor")
DIRTY_MB = 40
#: Enough memory that Linux, with its own defaults, begins to write out 40 MB by itself only after a while.
DIRTY = GuestOptions(name="bench-dirty", memory_mb=1024, disk_mb=256, iotune_bytes_sec=20_000_000)
#: The worker asks idle guests nothing while others have their turn.
SETTINGS = {"STILLPOINT_INVENTORY_SECONDS": "3600"}


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        # Below /var/tmp, because the QEMU of a system libvirtd runs as another user and writes its scratch file there.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-", dir="/var/tmp")))
        scratch.chmod(0o777)
        service = stack.enter_context(ServiceProcess("all", scratch / "state", SETTINGS))
        client = service.client()
        courses = [_idle(plan, client, scratch), _dirty(plan, client)]
        versions = _versions()
    settings = {"accelerator": versions.pop("accelerator"), "dirty_mb": DIRTY_MB, "disk_bytes_per_second": DIRTY.iotune_bytes_sec}
    return Report("stall", plan.seed, courses, _figures(*courses), settings, versions)


def _figures(idle: Course, dirty: Course) -> dict[str, float]:
    ours = idle.median("stillpoint", "stall_ms")
    return {
        "stall_idle_vs_virsh": ours / idle.median("virsh", "stall_ms"),
        "stall_idle_vs_virtnbdbackup": ours / idle.median("virtnbdbackup", "stall_ms"),
        "stall_idle_vs_floor": ours / idle.median("floor", "stall_ms"),
        "freeze_dirty_vs_virsh": dirty.median("stillpoint", "stall_ms") / dirty.median("virsh", "stall_ms"),
        "stall_idle_ms": ours,
        "stall_dirty_ms": dirty.median("stillpoint", "stall_ms"),
        "stall_idle_worst_ms": max(idle.all("stillpoint", "stall_ms")),
        "stall_idle_spread_ms": statistics.pstdev(idle.all("stillpoint", "stall_ms")),
    }


def _idle(plan: Plan, client: Client, scratch: Path) -> Course:
    with ExitStack() as stack:
        guest, floor = LabGuest(IDLE), FloorGuest(FLOOR)
        stack.callback(guest.destroy)
        stack.callback(floor.destroy)
        guest.start_and_wait()
        client.wait_domain(guest.name)
        guest.domain.suspend()
        floor.start()
        floor.monitor("stop")
        contestants: dict[str, Contestant] = {
            "stillpoint": Stillpoint(guest, client),
            "virsh": Virsh(guest),
            "virtnbdbackup": Virtnbdbackup(guest, scratch),
            "floor": Floor(floor),
        }
        return interleaving.run("stall, idle guest", {name: _turn(contestant) for name, contestant in contestants.items()}, plan)


def _dirty(plan: Plan, client: Client) -> Course:
    guest = LabGuest(DIRTY)
    try:
        guest.start_and_wait()
        client.wait_domain(guest.name)
        _write_dirty(guest)
        guest.exec("/bin/sync")
        guest.domain.suspend()
        contestants: dict[str, Contestant] = {"stillpoint": Stillpoint(guest, client), "virsh": Virsh(guest)}
        title = f"stall, guest with {DIRTY_MB} MB dirty pages"
        return interleaving.run(title, {name: _turn(contestant, guest) for name, contestant in contestants.items()}, plan)
    finally:
        guest.destroy()


def _turn(contestant: Contestant, dirty: LabGuest | None = None) -> interleaving.Turn:
    load = None if dirty is None else _dirt(dirty)
    return lambda: turn(contestant, load)


def _dirt(guest: LabGuest) -> Callable[[], None]:
    def load() -> None:
        guest.exec("/bin/sync")
        time.sleep(0.2)
        _write_dirty(guest)

    return load


def _write_dirty(guest: LabGuest) -> None:
    """Into the page cache of the guest, over the same blocks every time, and not synced."""
    guest.exec("/bin/dd", "if=/dev/zero", "of=/data/dirty", "bs=1M", f"count={DIRTY_MB}", "conv=notrunc")


def _versions() -> dict[str, str]:
    return {
        "qemu": program_version(["qemu-system-x86_64", "--version"]),
        "libvirt": program_version(["virsh", "-c", uri(), "version", "--daemon"]),
        "virtnbdbackup": program_version(["virtnbdbackup", "-V"]),
        "accelerator": kvm.domain_type(images.build()).replace("qemu", "tcg"),
    }
