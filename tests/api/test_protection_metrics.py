"""What /metrics says of each domain's points and of each host's libvirt, as alarms need it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Host
from tests.api.test_frozen_metrics import ago, of
from tests.api.world import add_job, add_recovery_point

AGE, FAILED = "stillpoint_domain_newest_point_seconds", "stillpoint_domain_snapshot_failed"
DAY = 86_400


def test_a_domain_that_nobody_asked_a_snapshot_of_is_not_told(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_job(session, ago(DAY), kind="preflight")
    assert of(api_on_both, AGE) == of(api_on_both, FAILED) == {}


def test_the_newest_point_counts_and_not_the_newest_job(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        for days, state in ((3, "succeeded"), (2, "succeeded"), (1, "failed")):
            job_id = add_job(session, ago(days * DAY), state=state)
            if state == "succeeded":
                add_recovery_point(session, job_id, ago(days * DAY))
    assert 2 * DAY <= of(api_on_both, AGE)["db1", "hv1"] < 2 * DAY + 60
    assert of(api_on_both, FAILED) == {("db1", "hv1"): 1}


def test_without_any_point_the_first_request_counts(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        add_job(session, ago(2 * DAY), state="failed")
        add_job(session, ago(DAY), state="failed")
    assert of(api_on_both, AGE)["db1", "hv1"] >= 2 * DAY


@pytest.mark.parametrize(
    "later", [{"state": "queued"}, {"state": "running"}, {"state": "cancelled"}, {"state": "failed", "kind": "preflight"}]
)
def test_only_a_snapshot_that_has_ended_says_whether_they_fail(api: TestClient, sqlite_database: Database, later: dict[str, Any]) -> None:
    with sqlite_database.write() as session:
        add_job(session, datetime.now(UTC) - timedelta(hours=1), state="succeeded")
        add_job(session, datetime.now(UTC), **later)
    assert of(api, FAILED) == {("db1", "hv1"): 0}


@pytest.mark.parametrize("connected", [True, False])
def test_a_host_without_libvirt_is_told(api_on_both: TestClient, database: Database, connected: bool) -> None:
    with database.write() as session:
        session.execute(update(Host).values(libvirt_connected=connected))
    assert of(api_on_both, "stillpoint_host_libvirt_connected") == {("hv1",): float(connected)}
