"""Frozen guests in /metrics: from the record alone, so that they are told when the worker is dead."""

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.api import metrics
from service.clock import rfc3339
from service.db.engine import Database
from tests.api.world import DB1, FROZEN, add_domain, add_host, add_job, window_intent

SECONDS, DEADLINE = "stillpoint_guest_frozen_seconds", "stillpoint_guest_frozen_deadline_seconds"


def of(api: TestClient, name: str) -> dict[tuple[str, ...], float]:
    """Values by labels, in the order of their names."""
    families = text_string_to_metric_families(api.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_nothing_frozen_is_a_zero_for_each_host(api_on_both: TestClient) -> None:
    assert of(api_on_both, "stillpoint_guests_frozen") == {("hv1",): 0}
    assert of(api_on_both, SECONDS) == of(api_on_both, DEADLINE) == {}


def test_a_job_in_its_window_is_a_frozen_guest_with_a_deadline(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_job(session, state="running", intent=window_intent(ago(40), limit_ms=30_500))
    assert of(api_on_both, "stillpoint_guests_frozen") == {("hv1",): 1}
    assert 40 <= of(api_on_both, SECONDS)["db1", "hv1"] < 50
    assert of(api_on_both, DEADLINE) == {("db1", "hv1"): 30.5}


def test_a_job_that_a_dead_worker_left_in_its_window_goes_on_counting(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_job(session, state="interrupted", intent=window_intent(ago(600)))
    assert of(api, SECONDS)["db1", "hv1"] >= 600


def test_somebody_elses_freeze_has_no_deadline_of_ours(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv2")
        add_domain(session, "web1", host_id="hv2", **(FROZEN | {"frozen_since": rfc3339(ago(90))}))
    assert of(api_on_both, "stillpoint_guests_frozen") == {("hv1",): 0, ("hv2",): 1}
    assert 90 <= of(api_on_both, SECONDS)["web1", "hv2"] < 100
    assert of(api_on_both, DEADLINE) == {}


def test_a_guest_that_a_job_of_ours_left_frozen_is_over_its_deadline_at_once(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_domain(session, "web1", **(FROZEN | {"frozen_since": rfc3339(ago(1)), "frozen_by": {"kind": "job", "job_id": DB1}}))
    assert of(api_on_both, DEADLINE) == {("web1", "hv1"): 0}


def test_a_guest_is_counted_once_and_its_job_knows_best(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "web1", DB1.replace("c", "d"), **FROZEN)
        add_job(session, state="running", domain_name="web1", domain_id=DB1.replace("c", "d"), intent=window_intent(ago(5)))
    assert of(api, "stillpoint_guests_frozen") == {("hv1",): 1}
    assert of(api, SECONDS)["web1", "hv1"] < 15


def test_jobs_that_hold_nothing_are_not_counted(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_job(session, state="succeeded", intent=window_intent(ago(60)))
        add_job(session, state="running", intent={"will_freeze": False, "overlays": []})
        add_job(session, state="interrupted", kind="thaw", phase="thaw")
    assert of(api, "stillpoint_guests_frozen") == {("hv1",): 0}


def test_however_many_are_frozen_the_series_are_bounded_and_the_oldest_are_among_them(api: TestClient, sqlite_database: Database) -> None:
    many = metrics.MAX_GUESTS + 5
    with sqlite_database.write() as session:
        for number in range(many):
            add_domain(session, f"vm{number}", **(FROZEN | {"frozen_since": rfc3339(ago(number))}))
    series = of(api, SECONDS)
    assert of(api, "stillpoint_guests_frozen") == {("hv1",): many}
    assert (len(series), (f"vm{many - 1}", "hv1") in series, ("vm0", "hv1") in series) == (metrics.MAX_GUESTS, True, False)


def test_finished_jobs_are_counted_from_an_index_alone(sqlite_database: Database) -> None:
    """A look-up of each finished job would make this the slowest statement of a service with a million of them."""
    counted = "SELECT state, kind, count(*) FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled') GROUP BY state, kind"
    with sqlite_database.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {counted}")]
    assert plan == ["SEARCH jobs USING COVERING INDEX ix_jobs_state_kind (state=?)"]
