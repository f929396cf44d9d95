"""Copies in protection and in /metrics: what waits for them, and whether their stores keep their locks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from service.db.engine import Database, database_now
from service.db.tables import CopiedPoint, Copy, RecoveryPoint
from service.model.copied import CopiedState
from service.model.copy_target import FolderTarget, S3Target
from service.model.immutability import Immutability
from service.records import copied_points, copies, points
from service.records.copied_points import Arrived
from service.records.copies import CopyRegistration
from tests.api.test_frozen_metrics import of
from tests.scenes.repositories import id_of_point
from tests.scenes.retained import add_nights, add_policy, add_ready_repository

OFFSITE, DISK = ("offsite", "nas"), ("disk", "nas")
UNTIL = datetime(2031, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def api(api_on_both: TestClient, database: Database) -> TestClient:
    """Two nights, of which `offsite` has the first, locked; no policy names `disk`."""
    with database.write() as session:
        nas, now = add_ready_repository(session), database_now(session)
        offsite = copies.add(session, nas, CopyRegistration("offsite", S3Target("one-bucket"), retain_days=30), now)
        copies.add(session, nas, CopyRegistration("disk", FolderTarget("/mnt/disk")), now)
        add_policy(session, copies=["offsite"])
        add_nights(session, nas, "a", "b")
        session.execute(update(Copy).values(created_at=now - 40 * DAY))
        session.execute(update(RecoveryPoint).values(created_at=now - 2 * DAY))
        copied_points.begin(session, offsite, id_of_point("a"), "job")
        copied_points.note_sent(session, offsite, Arrived(id_of_point("a"), 10, "content", UNTIL), now)
    return api_on_both


def prove(database: Database, immutability: Immutability) -> None:
    with database.write() as session:
        now = database_now(session)
        session.execute(update(Copy).where(Copy.name == "offsite").values(immutability=immutability.value, proven_at=now - DAY))


def listed(api: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/v1/protection").json()["copies"]
    return found


def near(value: float, seconds: float) -> bool:
    return abs(value - seconds) < 120


def test_metrics_say_how_far_a_copy_is_behind(api: TestClient) -> None:
    assert of(api, "stillpoint_copy_points_waiting") == {OFFSITE: 1, DISK: 0}
    waits = of(api, "stillpoint_copy_waiting_seconds")
    assert (near(waits[OFFSITE], 2 * DAY.total_seconds()), waits[DISK]) == (True, 0)
    assert list(of(api, "stillpoint_copy_newest_point_seconds")) == [OFFSITE]


def test_metrics_say_whether_locks_are_kept_and_until_when(api: TestClient, database: Database) -> None:
    assert of(api, "stillpoint_copy_lock_kept") == {OFFSITE: 0}
    prove(database, Immutability.immutable)
    assert of(api, "stillpoint_copy_locked_until_timestamp_seconds") == {OFFSITE: UNTIL.timestamp()}


def test_a_proof_counts_from_the_day_of_the_attack(api: TestClient, database: Database) -> None:
    prove(database, Immutability.immutable)
    assert of(api, "stillpoint_copy_lock_kept") == {OFFSITE: 1}
    assert near(of(api, "stillpoint_copy_proven_seconds")[OFFSITE], DAY.total_seconds())


def test_protection_lists_the_copies_that_have_a_fault(api: TestClient, database: Database) -> None:
    (copy,) = listed(api)
    assert (copy["name"], copy["repository"]["name"], copy["waiting"]) == ("offsite", "nas", 1)
    assert copy["faults"] == ["points_wait", "proof_too_old"]
    prove(database, Immutability.claims_only)
    assert listed(api)[0]["faults"] == ["points_wait", "lock_not_kept"]


def test_a_copy_that_has_everything_is_not_listed(api: TestClient, database: Database) -> None:
    prove(database, Immutability.immutable)
    with database.write() as session:
        points.set_pinned(session, id_of_point("b"), pinned=True)
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == id_of_point("b")).values(labels={}, document=None))
    assert listed(api) == []


def test_damage_that_a_check_found_is_told(api: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(update(CopiedPoint).values(state=CopiedState.damaged.value))
    assert "points_damaged" in listed(api)[0]["faults"]
    assert of(api, "stillpoint_copy_points_damaged") == {OFFSITE: 1, DISK: 0}
