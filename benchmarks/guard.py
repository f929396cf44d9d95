"""What the thaw guard costs a freeze window: the same windows of the same guest, with a guard and without."""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import interleaving
from benchmarks.interleaving import Numbers, Plan
from benchmarks.report import Report, program_version
from service.freeze import window as freeze_window
from service.freeze.guard import GuardKeeper, GuardSource, NoGuards
from service.freeze.window import WindowPlan
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.model.timing import ms_between
from service.model.window import WindowRecord
from tests.lab import images, kvm
from tests.lab.daemon import Daemon, uri
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions

GUEST = GuestOptions(name="bench-guard")
WINDOWS_A_TURN = 10
"""Their median is one number of a round: a single window varies by more than the guard costs."""
PAUSE_S = 0.2
"""The guest has written again by then: right after a thaw there is nothing to flush, and a freeze takes a tenth of the time."""
PLAN = WindowPlan(mountpoints=None, freeze_timeout_ms=20_000, hold_limit_ms=10_000)
JOB = "00000000-0000-4000-8000-000000000000"


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        lab_guest = LabGuest(GUEST)
        stack.callback(lab_guest.destroy)
        lab_guest.start_and_wait()
        keeper = GuardKeeper(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-"))), uri())
        stack.callback(keeper.close)
        connection = HostConnection(uri())
        stack.callback(connection.close)
        guest = connection.guest(lab_guest.name)
        turns = {"guarded": lambda: _turn(guest, keeper), "unguarded": lambda: _turn(guest, NoGuards())}
        course = interleaving.run("a freeze window without a snapshot", turns, plan)
        versions = _versions()
    guarded, unguarded = course.median("guarded", "window_ms"), course.median("unguarded", "window_ms")
    figures = {"guard_cost_ms": guarded - unguarded, "window_guarded_ms": guarded, "window_unguarded_ms": unguarded}
    return Report("guard", plan.seed, [course], figures, {"windows_a_turn": WINDOWS_A_TURN}, versions)


def _turn(guest: Guest, guards: GuardSource) -> Numbers:
    windows = [_window(guest, guards) for _ in range(WINDOWS_A_TURN)]
    spans = [(window.instants.freeze_sent, window.instants.thaw_reply) for window in windows]
    return {
        "window_ms": statistics.median(ms_between(*span) or 0.0 for span in spans),
        "hold_ms": statistics.median(window.instants.hold_ms or 0.0 for window in windows),
    }


def _window(guest: Guest, guards: GuardSource) -> WindowRecord:
    with guards.start_guard(JOB, guest.uuid, guest.name) as guard:
        guard.wait_until_ready()
        time.sleep(PAUSE_S)
        return freeze_window.run(guest, lambda _hold: None, PLAN, guard)


def _versions() -> dict[str, str]:
    return {
        "qemu": program_version(["qemu-system-x86_64", "--version"]),
        "libvirt": program_version(["virsh", "-c", uri(), "version", "--daemon"]),
        "accelerator": kvm.domain_type(images.build()).replace("qemu", "tcg"),
    }
