"""How long the writes of a Windows guest are held, by Stillpoint and by `virsh --quiesce`, with one disk and with eight.

QEMU and libvirt are real; the agent is simulated and knows to the microsecond when its hold began and when it ended. That
is the measure for both contestants. The part of the hold before the freeze reply is the simulator's own and is left out.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import interleaving
from benchmarks.contestants import merge_back, take_with_virsh
from benchmarks.interleaving import Course, Numbers, Plan
from benchmarks.report import Report, program_version
from benchmarks.service_process import Client, ServiceProcess
from benchmarks.stall import SETTINGS
from tests.lab import images, kvm
from tests.lab.daemon import Daemon, uri
from tests.lab.guests import LabGuest
from tests.lab.places import LabError
from tests.lab.windows.guest import WindowsGuest, windows_options

SCENARIO = "healthy-2022"
DISKS = (1, 8)


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-")))
        client = stack.enter_context(ServiceProcess("all", state, SETTINGS)).client()
        one, eight = (_course(plan, client, disks) for disks in DISKS)
        versions = _versions()
    settings = {"accelerator": versions.pop("accelerator"), "scenario": SCENARIO}
    return Report("windows", plan.seed, [one, eight], _figures(one, eight), settings, versions)


def _figures(one: Course, eight: Course) -> dict[str, float]:
    return {
        "hold_windows_1disk_ms": one.median("stillpoint", "hold_ms"),
        "hold_windows_8disks_ms": eight.median("stillpoint", "hold_ms"),
        "hold_windows_vs_virsh": one.median("stillpoint", "held_ms") / one.median("virsh", "held_ms"),
        "hold_windows_8disks_vs_virsh": eight.median("stillpoint", "held_ms") / eight.median("virsh", "held_ms"),
        "hold_windows_worst_ms": max(one.all("stillpoint", "hold_ms") + eight.all("stillpoint", "hold_ms")),
    }


def _course(plan: Plan, client: Client, disks: int) -> Course:
    guest = WindowsGuest(SCENARIO, guest=LabGuest(windows_options(name=f"bench-windows-{disks}", disks=disks)))
    try:
        guest.start()
        client.wait_domain(guest.name)
        turns = {"stillpoint": lambda: _stillpoint(guest, client), "virsh": lambda: _virsh(guest)}
        return interleaving.run(f"hold, Windows, {disks} disk{'s' if disks > 1 else ''}", turns, plan)
    finally:
        guest.destroy()


def _stillpoint(guest: WindowsGuest, client: Client) -> Numbers:
    """A job over HTTP, with nothing but defaults."""
    before = len(guest.agent.sessions)
    job = client.wait_job(client.post("/api/v1/jobs", {"kind": "snapshot", "domain": guest.name}))
    if job["state"] != "succeeded" or job["verdict"] != "application":
        raise LabError(f"Stillpoint's job ended {job['state']} with verdict {job['verdict']}: {job['error']}")
    names = ("hold_ms", "point_in_time_ms", "freeze_ms", "thaw_ms")
    return _ended(guest, before) | {name: job["timing"][name] for name in names}


def _virsh(guest: WindowsGuest) -> Numbers:
    before = len(guest.agent.sessions)
    take_with_virsh(guest.name)
    return _ended(guest, before)


def _ended(guest: WindowsGuest, before: int) -> Numbers:
    """What the simulator saw of the one hold since `before`; the disks are back on the files that they were made with."""
    merge_back(guest.guest)
    new = guest.agent.sessions[before:]
    if len(new) != 1 or new[0].ended_by != "thaw":
        raise LabError(f"{guest.name} should have been frozen once and thawed, and was not: {new}")
    (session,) = new
    return {"held_ms": (session.writes_released_s - session.began_s - guest.scenario.hold.before_reply_s) * 1000}


def _versions() -> dict[str, str]:
    return {
        "qemu": program_version(["qemu-system-x86_64", "--version"]),
        "libvirt": program_version(["virsh", "-c", uri(), "version", "--daemon"]),
        "accelerator": kvm.domain_type(images.build()).replace("qemu", "tcg"),
    }
