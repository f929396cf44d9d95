"""Whether a flood of wrong tokens makes a guest wait longer than the same flood on another process of the machine does."""

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks import interleaving, load
from benchmarks.contestants import Stillpoint, turn
from benchmarks.interleaving import Numbers, Plan
from benchmarks.load import Load, Outcome, request_bytes
from benchmarks.report import Report
from benchmarks.service_process import ServiceProcess
from tests.lab.daemon import Daemon
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions

GUEST = GuestOptions(name="bench-flood")
CONNECTIONS = 16
FLOOD_S = 4.0
SETTINGS = {"STILLPOINT_INVENTORY_SECONDS": "3600"}


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-")))
        service = stack.enter_context(ServiceProcess("all", folder / "state", SETTINGS))
        other = ServiceProcess("serve", folder / "other", SETTINGS)
        other.migrate()
        stack.enter_context(other)
        guest = LabGuest(GUEST)
        stack.callback(guest.destroy)
        guest.start_and_wait()
        client = service.client()
        client.wait_domain(guest.name)
        guest.domain.suspend()
        generator = stack.enter_context(load.generator())
        contestant = Stillpoint(guest, client)
        turns: dict[str, Callable[[], Numbers]] = {
            "quiet": lambda: turn(contestant),
            "flood": _flooded(contestant, generator, service.port),
            "flood of another process": _flooded(contestant, generator, other.port),
        }
        course = interleaving.run("write stall under a flood of wrong tokens", turns, plan)
    stalls = {name: course.median(name, "stall_ms") for name in turns}
    figures = {
        "stall_under_flood_vs_other_process": stalls["flood"] / stalls["flood of another process"],
        "stall_under_flood_ms": stalls["flood"],
        "stall_under_flood_of_other_process_ms": stalls["flood of another process"],
        "stall_without_flood_ms": stalls["quiet"],
    }
    return Report("flood", plan.seed, [course], figures, {"connections": CONNECTIONS, "flood_seconds": FLOOD_S})


def _flooded(contestant: Stillpoint, generator: ProcessPoolExecutor, port: int) -> Callable[[], Numbers]:
    asked = Load(port, request_bytes("GET", "/api/v1/jobs", "sp_this-is-no-token"), 401, CONNECTIONS, FLOOD_S)
    begun: list[Future[Outcome]] = []

    def measured() -> Numbers:
        numbers = turn(contestant, lambda: begun.append(generator.submit(load.run, asked)))
        return {**numbers, "refused_per_second": begun.pop().result().per_second}

    return measured
