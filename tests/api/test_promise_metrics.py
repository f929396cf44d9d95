"""What /metrics says of what policies promise, as alarms need it."""

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from service.api import metrics_promises
from service.db.engine import Database
from service.db.tables import RepositorySample
from tests.api.test_frozen_metrics import of
from tests.api.world import add_domain
from tests.scenes.promised import DAY, HOUR, REPOSITORY, add_point, add_policy, add_repository, add_schedule, now

STATES, DEADLINE = "stillpoint_protection_domains", "stillpoint_domain_promise_deadline_timestamp_seconds"
AGE, FULL = "stillpoint_domain_newest_kept_point_seconds", "stillpoint_repository_full_timestamp_seconds"


@pytest.fixture
def api(api: TestClient, sqlite_database: Database) -> TestClient:
    """The promise for `db1` is broken since 22 hours, and nobody asked for `spare`."""
    with sqlite_database.write() as session:
        add_repository(session)
        add_schedule(session, add_policy(session, names=["db1"]))
        add_point(session, now() - 2 * DAY)
        add_domain(session, "spare")
    return api


def test_each_state_is_counted_from_zero(api: TestClient) -> None:
    assert of(api, STATES)[("broken",)] == of(api, STATES)[("unprotected",)] == 1
    assert of(api, STATES)[("tie",)] == of(api, STATES)[("protected",)] == 0


def test_a_domain_has_the_time_at_which_its_promise_breaks_and_the_age_of_the_point_that_keeps_it(api: TestClient) -> None:
    ((labels, at),) = of(api, DEADLINE).items()
    assert labels == ("db1", "hv1", "production")
    assert abs(at - (now() - 22 * HOUR).timestamp()) < 60
    assert abs(of(api, AGE)["db1", "hv1"] - 2 * DAY.total_seconds()) < 60


def test_a_paused_policy_breaks_no_promise(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        other = add_domain(session, "db2")
        add_schedule(session, add_policy(session, "later", names=["db2"], paused=True), other, domain="db2")
    assert [labels[0] for labels in of(api, DEADLINE)] == ["db1"]


def test_too_many_domains_have_no_series_of_their_own(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_promises, "MAX_DOMAINS", 1)
    assert of(api, DEADLINE) == of(api, AGE) == {}
    assert of(api, STATES)[("broken",)] == 1


def test_a_repository_that_fills_up_has_its_date(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        for hour in range(49):
            at = now() - timedelta(hours=48 - hour)
            session.add(RepositorySample(repository_id=REPOSITORY, at=at, free_bytes=(100 - hour) << 30))
    assert abs(of(api, FULL)[("main",)] - (now() + 52 * HOUR).timestamp()) < 600
