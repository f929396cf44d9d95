"""Whether a page of the list costs the same at 1,000 and at 1,000,000 jobs: alone on its connection, one request after the other."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote

from benchmarks import databases, filling, interleaving, load
from benchmarks.databases import KINDS, filled_services
from benchmarks.interleaving import Course, Plan, Turn
from benchmarks.load import Load, request_bytes
from benchmarks.report import Report
from benchmarks.service_process import Client, ServiceProcess

SIZES = {"jobs_1k": 1_000, "jobs_1m": 1_000_000}
REQUESTS = 40
PAGE = "/api/v1/jobs?limit=50"
FILTERS = {
    "state": "state=failed",
    "kind": "kind=preflight",
    "domain": f"domain={filling.domain_name(3)}",
    "verdict": "verdict=crash",
    "label": "label=plan:nightly",
    "state and domain": f"state=succeeded&domain={filling.domain_name(3)}",
}
#: How far down the list a cursor stands, of all jobs.
DEPTHS = {"cursor at half": 0.5, "cursor at 90 %": 0.9}
UNFILTERED = ("first page", *DEPTHS)


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        found = stack.enter_context(databases.opened())
        generator = stack.enter_context(load.generator())
        turns: dict[str, Turn] = {}
        for (kind, size), service in filled_services(found, SIZES).items():
            stack.enter_context(service)
            for what, path in _pages(service.client(), SIZES[size]):
                turns[f"{what} {kind} {size}"] = _turn(generator, service, path)
        course = interleaving.run("pages of the list", turns, plan)
        versions = {"postgresql": found.postgresql_version()}
    settings = {"requests_per_turn": REQUESTS, "connections": 1, "page": 50}
    return Report("list", plan.seed, [course], _figures(course), settings, versions)


def _figures(course: Course) -> dict[str, float]:
    ratios = {f"{what} {kind}": _ratio(course, f"{what} {kind}") for kind in KINDS for what in (*UNFILTERED, *FILTERS)}
    return {
        "list_1m_vs_1k": max(ratios[f"{what} {kind}"] for kind in KINDS for what in UNFILTERED),
        "list_1m_vs_1k_filtered": max(ratios[f"{what} {kind}"] for kind in KINDS for what in FILTERS),
        **{f"list_1m_vs_1k: {name}": ratio for name, ratio in ratios.items()},
    }


def _ratio(course: Course, name: str) -> float:
    return course.median(f"{name} jobs_1m", "p50_ms") / course.median(f"{name} jobs_1k", "p50_ms")


def _pages(client: Client, jobs: int) -> Iterator[tuple[str, str]]:
    yield "first page", PAGE
    for what, depth in DEPTHS.items():
        yield what, f"{PAGE}&cursor={_cursor(client, int(jobs * depth))}"
    for what, condition in FILTERS.items():
        yield what, f"{PAGE}&{condition}"


def _cursor(client: Client, position: int) -> str:
    """One that the API itself gave out, this far down: the jobs are a minute apart."""
    until = quote((filling.NEWEST - filling.APART * position).isoformat())
    return str(client.get(f"/api/v1/jobs?limit=1&until={until}")["next_cursor"])


def _turn(generator: ProcessPoolExecutor, service: ServiceProcess, path: str) -> Turn:
    asked = Load(service.port, request_bytes("GET", path, service.token), connections=1, seconds=60, requests=REQUESTS)

    def turn() -> interleaving.Numbers:
        outcome = generator.submit(load.run, asked).result()
        return {"p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms}

    return turn
