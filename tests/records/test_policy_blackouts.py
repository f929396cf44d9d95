"""Jobs of a policy that wait in the queue do not begin in its blackouts."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job, Policy
from service.model.lifecycle import JobState
from service.model.origin import Origin
from service.records import slots
from service.records.new_job import NewJob
from tests.model.written_policies import a_blackout
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add, claimed, everything_expires, resolve, try_to_claim
from tests.scenes.scheduled import Scheduled, for_databases

OFFICE = a_blackout("08:00", "18:00", days=["mon"])


def a_scene(database: Database, *blackouts: dict[str, Any]) -> Scheduled:
    with database.write() as session:
        slots.ensure_lanes(session, "hv1", 8, 8)
    scene = Scheduled(database)
    scene.domain()
    scene.policy(for_databases(blackouts=list(blackouts)))
    scene.look()
    return scene


def noted(scene: Scheduled) -> tuple[str | None, str | None]:
    with scene.database.read() as session:
        since, until = session.execute(select(Policy.blocked_from, Policy.blocked_until)).one()
    return (f"{since:%d %H:%M}" if since is not None else None), (f"{until:%d %H:%M}" if until is not None else None)


def test_a_blackout_is_noted_before_it_begins_and_until_it_ends(database: Database) -> None:
    scene = a_scene(database, OFFICE)
    assert noted(scene.at("15 07:58:50")) == (None, None)
    assert noted(scene.at("15 07:59:50")) == ("15 08:00", "15 18:00")
    assert noted(scene.at("15 12:00")) == ("15 08:00", "15 18:00")
    scene.policy(for_databases())
    assert noted(scene.later(seconds=1)) == (None, None)


def in_blackout(database: Database, minutes: float = 60) -> None:
    """By the clock of the database, from an hour ago."""
    now = datetime.now(UTC)
    with database.write() as session:
        session.execute(
            update(table_of(Policy)).values(blocked_from=now - timedelta(hours=1), blocked_until=now + timedelta(minutes=minutes))
        )


def of_policy(domain: str, **more: Any) -> NewJob:
    return a_snapshot(domain, labels=Origin("production", "nightly").as_labels(), **more)


def test_a_job_that_waits_does_not_begin_in_a_blackout_and_lets_the_others_pass(database: Database) -> None:
    a_scene(database)
    in_blackout(database)
    waiting = add(database, of_policy("a"))
    others = [add(database, a_snapshot("b")), add(database, a_snapshot("c", labels=Origin("other", "nightly").as_labels()))]
    assert [claimed(database).job_id for _ in others] == others
    assert try_to_claim(database) is None
    in_blackout(database, minutes=-1)
    assert claimed(database).job_id == waiting


def test_what_a_person_asks_for_begins_in_a_blackout(database: Database) -> None:
    """Also where the person tries a job of the policy again: the job has the labels of its policy."""
    a_scene(database)
    in_blackout(database)
    wanted = add(database, of_policy("a", token="t1"))
    assert claimed(database).job_id == wanted


def test_a_job_that_has_begun_continues_in_a_blackout(database: Database) -> None:
    a_scene(database)
    wanted = add(database, of_policy("a"))
    claimed(database)
    in_blackout(database)
    everything_expires(database)
    resolve(database, wanted, JobState.queued)
    assert claimed(database).job_id == wanted
    with database.read() as session:
        assert session.get_one(Job, wanted).attempt == 2
