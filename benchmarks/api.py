"""Requests per second against a bare FastAPI route that returns the same bytes, on both databases, with 100,000 jobs stored."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import creating, databases, filling, interleaving, load
from benchmarks.databases import KINDS, filled_services
from benchmarks.interleaving import Course, Plan, Turn
from benchmarks.load import Load, request_bytes
from benchmarks.report import Report
from benchmarks.service_process import ServiceProcess, free_port, stop, wait_http

JOBS = 100_000
JOBS_WHERE_CREATED = 1_000
CONNECTIONS = 8
SECONDS = 0.8
CREATE_BODY = {"kind": "snapshot", "domain": filling.domain_name(0)}
VARIANTS = ("def", "async")
CALLS = ("get_job", "list", "create")


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        found = stack.enter_context(databases.opened())
        loads = Loads(stack.enter_context(load.generator()))
        # Created jobs are the newest: in the same database they would change the page that is compared with fixed bytes.
        services = filled_services(found, {"reading": JOBS, "creating": JOBS_WHERE_CREATED})
        for service in services.values():
            stack.enter_context(service)
        for kind in KINDS:
            loads.add_service(kind, services[kind, "reading"], services[kind, "creating"])
        bodies = loads.bodies
        for call, of in bodies.items():
            (found.folder / call).write_bytes(of["sqlite"])
        loads.add_bare(stack.enter_context(_bare(found.folder)))
        course = interleaving.run("requests", loads.turns, plan)
        versions = {"postgresql": found.postgresql_version()}
    created, creating_figures = creating.measure(plan)
    sizes = {call: {kind: len(body) for kind, body in of.items()} for call, of in bodies.items()}
    settings = {"jobs_stored": JOBS, "connections": CONNECTIONS, "seconds_per_turn": SECONDS, "body_bytes": sizes}
    return Report("api", plan.seed, [course, created], {**_figures(course), **creating_figures}, settings, versions)


def _figures(course: Course) -> dict[str, float]:
    figures: dict[str, float] = {}
    for call in CALLS:
        bare = max(course.median(f"{call} bare {variant}", "per_second") for variant in VARIANTS)
        ratios = {kind: course.median(f"{call} {kind}", "per_second") / bare for kind in KINDS}
        figures[f"api_{call}_vs_bare"] = min(ratios.values())
        figures |= {f"api_{call}_vs_bare_{kind}": ratio for kind, ratio in ratios.items()}
    return figures


class Loads:
    """What is sent to whom. Bodies are kept as the services answered them."""

    def __init__(self, generator: ProcessPoolExecutor) -> None:
        self.turns: dict[str, Turn] = {}
        self.bodies: dict[str, dict[str, bytes]] = {call: {} for call in CALLS}
        self._generator = generator

    def add_service(self, kind: str, reading: ServiceProcess, creating: ServiceProcess) -> None:
        client = reading.client()
        page = "/api/v1/jobs?limit=50"
        job = f"/api/v1/jobs/{client.get(page)['items'][25]['id']}"
        self.bodies["get_job"][kind] = client.get_bytes(job)
        self.bodies["list"][kind] = client.get_bytes(page)
        self.bodies["create"][kind] = creating.client().post_bytes("/api/v1/jobs", CREATE_BODY)
        self._add(f"get_job {kind}", Load(reading.port, request_bytes("GET", job, reading.token)))
        self._add(f"list {kind}", Load(reading.port, request_bytes("GET", page, reading.token)))
        self._add(f"create {kind}", Load(creating.port, _create_request("/api/v1/jobs", creating.token), 202))

    def add_bare(self, port: int) -> None:
        for variant in VARIANTS:
            for call in ("get_job", "list"):
                self._add(f"{call} bare {variant}", Load(port, request_bytes("GET", f"/{variant}/{call}")))
            self._add(f"create bare {variant}", Load(port, _create_request(f"/{variant}/create", None), 202))

    def _add(self, name: str, what: Load) -> None:
        asked = Load(what.port, what.request, what.expected_status, CONNECTIONS, SECONDS)

        def turn() -> interleaving.Numbers:
            outcome = self._generator.submit(load.run, asked).result()
            return {"per_second": outcome.per_second, "p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms}

        self.turns[name] = turn


def _create_request(path: str, token: str | None) -> bytes:
    return request_bytes("POST", path, token, json.dumps(CREATE_BODY).encode())


@contextmanager
def _bare(folder: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(port), str(folder)])
    try:
        wait_http(port, "/async/get_job", lambda: None if process.poll() is None else "the bare server ended")
        yield port
    finally:
        stop(process)
