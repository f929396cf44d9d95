"""How soon a worker begins with a job, and how much memory the service takes while it has nothing to do."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import interleaving
from benchmarks.contestants import merge_back
from benchmarks.interleaving import Course, Numbers, Plan
from benchmarks.memory import of_tree
from benchmarks.report import Report
from benchmarks.service_process import Client, ServiceProcess
from tests.lab.daemon import Daemon
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions

GUEST = GuestOptions(name="bench-pickup")
KINDS = ("preflight", "snapshot")
REQUESTS_BEFORE_MEMORY = 20
SETTLE_S = 2.0
PAUSE_S = 0.3


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-")))
        guest = LabGuest(GUEST)
        stack.callback(guest.destroy)
        guest.start_and_wait()
        service = stack.enter_context(ServiceProcess("all", scratch / "state"))
        client = service.client()
        client.wait_domain(guest.name)
        memory = _idle_memory(service, client)
        course = interleaving.run("from 202 to the first phase", {kind: _turn(client, guest, kind) for kind in KINDS}, plan)
        after_jobs = of_tree(service.pid)
    return Report("pickup", plan.seed, [course], {**_figures(course), **memory, "rss_after_jobs_mb": after_jobs.rss_mb})


def _figures(course: Course) -> dict[str, float]:
    by_kind = {f"pickup_{kind}_p50_ms": course.median(kind, "pickup_ms") for kind in KINDS}
    return {"pickup_p50_ms": max(by_kind.values()), **by_kind}


def _turn(client: Client, guest: LabGuest, kind: str) -> Callable[[], Numbers]:
    def turn() -> Numbers:
        time.sleep(PAUSE_S)
        asked = client.post("/api/v1/jobs", {"kind": kind, "domain": guest.name})
        answered = datetime.now(UTC)
        job = client.wait_job(asked)
        merge_back(guest)
        return {
            # Below zero where the worker is faster than the answer.
            "pickup_ms": _ms(answered, _time(job["phases"][0]["started_at"])),
            "created_to_phase_ms": _ms(_time(job["created_at"]), _time(job["phases"][0]["started_at"])),
            "whole_ms": _ms(_time(job["created_at"]), _time(job["finished_at"])),
        }

    return turn


def _idle_memory(service: ServiceProcess, client: Client) -> dict[str, float]:
    for _ in range(REQUESTS_BEFORE_MEMORY // 2):
        client.get("/api/v1/jobs")
        client.get("/api/v1/domains")
    time.sleep(SETTLE_S)
    found = of_tree(service.pid)
    return {"idle_rss_mb": found.rss_mb, "idle_pss_mb": found.pss_mb, "idle_processes": float(found.processes)}


def _time(value: Any) -> datetime:
    return datetime.fromisoformat(str(value))


def _ms(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() * 1000
