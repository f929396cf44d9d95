"""One freeze lease for each domain: the job that runs. A guest that somebody else holds is named as far as it is known, and left alone."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from service.db.engine import Database
from service.db.tables import Domain, Job
from service.errors import DatabaseUnavailable, GuestAlreadyFrozen, GuestStillFrozen
from service.jobs.ending import Ending
from service.jobs.run import JobRun
from service.model.foreign_freeze import by_another, by_job, by_unknown
from service.model.intent import WindowIntent
from service.records import freeze_lease, queue
from service.records.queue import NewJob
from service.worker.publishing import Inventory
from tests.fakes import agent_silent
from tests.scenes.host import FREEZE, HOST, STATUS, THAW, Scene, error_of

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


def publish(scene: Scene, busy: frozenset[str] = NOBODY) -> dict[str, Any]:
    """By a worker that was just started: what it knows is in the database."""
    Inventory(scene.database, scene.host, HOST).publish(busy)
    return published(scene)


def published(scene: Scene) -> dict[str, Any]:
    with scene.database.read() as session:
        row = session.get(Domain, (HOST, scene.domain.uuid()))
    assert row is not None
    return {name: row.document[name] for name in ("frozen", "frozen_since", "frozen_by")}


def windows(scene: Scene) -> list[freeze_lease.Window]:
    with scene.database.read() as session:
        return freeze_lease.open_windows(session)


def enqueue(database: Database, kind: str, domain_id: str, host_id: str) -> str:
    with database.write() as session:
        new = NewJob(kind=kind, domain_id=domain_id, domain_name="db1", host_id=host_id, request={}, labels={})
        return queue.enqueue(session, new).job_id


def claim(database: Database, host_id: str) -> str | None:
    with database.write() as session:
        queue.ensure_slots(session, f"host:{host_id}:quick", 4)
        found = queue.claim(session, host_id, f"{host_id}:1", 60)
    return found.job_id if found else None


# --- one lease for each domain --------------------------------------------------------------------


def test_a_domain_that_two_hosts_have_is_frozen_by_one_job_at_a_time(database: Database) -> None:
    """As while it migrates, or on shared storage after a host was lost."""
    first, second = enqueue(database, "snapshot", "one-uuid", "hv1"), enqueue(database, "snapshot", "one-uuid", "hv2")
    assert (claim(database, "hv1"), claim(database, "hv2")) == (first, None)
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(Job).where(Job.id == second).values(state="running"))


def test_an_interrupted_job_keeps_the_lease_until_recovery_has_looked(database: Database) -> None:
    first, _second = enqueue(database, "snapshot", "one-uuid", "hv1"), enqueue(database, "snapshot", "one-uuid", "hv2")
    assert claim(database, "hv1") == first
    with database.write() as session:
        queue.release_expired(session, "hv1", all_running=True)
    assert claim(database, "hv2") is None


def test_a_thaw_runs_beside_the_job_that_holds_the_lease_and_takes_none(database: Database) -> None:
    holder, thaw = enqueue(database, "snapshot", "one-uuid", "hv1"), enqueue(database, "thaw", "one-uuid", "hv2")
    assert (claim(database, "hv1"), claim(database, "hv2")) == (holder, thaw)
    intent = {"will_freeze": True, "overlays": [], "window": WindowIntent(datetime.now(UTC), 1000).as_document()}
    with database.write() as session:
        session.execute(update(Job).values(intent=intent))
    with database.read() as session:
        assert [window.job_id for window in freeze_lease.open_windows(session)] == [holder]


def test_the_window_is_on_record_from_before_the_freeze_until_after_the_thaw(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path)
    seen: dict[str, list[freeze_lease.Window]] = {}

    def note(call: str) -> None:
        seen[call] = windows(scene)

    for call in ("guest-ping", FREEZE, "snapshot_create", THAW):
        scene.domain.when_next(call, partial(note, call))
    before = datetime.now(UTC)
    job = scene.run(freeze={"timeout_ms": 10_000, "hold_limit_ms": 4_000})

    assert (job.state, windows(scene)) == ("succeeded", [])
    # Closed by the write right after the thaw: reading VSS writers, or discarding the point, may take another minute.
    assert job.intent is not None
    assert job.intent["will_freeze"] is False
    assert seen["guest-ping"] == []
    assert seen[FREEZE] == seen["snapshot_create"] == seen[THAW]
    (window,) = seen[FREEZE]
    assert (window.job_id, window.domain_name, window.host_id, window.limit_s) == (job.id, "db1", HOST, 14.0)
    assert before <= window.since <= datetime.now(UTC)


def test_a_cancel_request_does_not_make_the_window_younger(scene: Scene) -> None:
    """The last change of the row is no measure of how long the guest has been frozen."""
    seen = []

    def cancel() -> None:
        seen.extend(windows(scene))
        with scene.database.write() as session:
            queue.request_cancel(session, seen[0].job_id)
        seen.extend(windows(scene))

    scene.domain.when_next("snapshot_create", cancel)
    scene.run()
    assert seen[0].since == seen[1].since


def test_a_job_that_does_not_freeze_opens_no_window(scene: Scene) -> None:
    seen = []
    scene.domain.when_next("snapshot_create", lambda: seen.extend(windows(scene)))
    assert scene.run(freeze={"mode": "off"}).state == "succeeded"
    assert seen == []


# --- what the host publishes ----------------------------------------------------------------------


def test_a_guest_that_was_seen_thawed_and_is_then_frozen_is_held_by_somebody_else(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path)
    assert publish(scene) == {"frozen": False, "frozen_since": None, "frozen_by": None}
    scene.domain.agent.freeze_by_somebody_else()
    before = datetime.now(UTC)
    found = publish(scene)
    assert (found["frozen"], found["frozen_by"]) == (True, by_another())
    assert before <= datetime.fromisoformat(found["frozen_since"]) <= datetime.now(UTC)


def test_of_a_guest_that_was_frozen_when_it_was_first_seen_nobody_is_known(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    assert publish(scene)["frozen_by"] == by_unknown()


def test_since_when_outlives_the_worker_and_ends_with_the_freeze(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    first = publish(scene)
    assert publish(scene) == first
    scene.domain.agent.thaw_by_somebody_else()
    assert publish(scene) == {"frozen": False, "frozen_since": None, "frozen_by": None}
    scene.domain.agent.freeze_by_somebody_else()
    assert publish(scene)["frozen_since"] > first["frozen_since"]


def test_an_agent_that_falls_silent_does_not_end_the_freeze(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    first = publish(scene)
    scene.domain.agent.answers = False
    assert publish(scene) == {**first, "frozen": None}
    scene.domain.agent.answers = True
    assert publish(scene) == first


def test_a_guest_that_was_shut_off_is_frozen_no_more(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    publish(scene)
    scene.domain.shut_off()
    assert publish(scene) == {"frozen": None, "frozen_since": None, "frozen_by": None}


def test_a_busy_guest_shows_what_it_said_last(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    first = publish(scene)
    assert publish(scene, frozenset({scene.domain.uuid()})) == first


@pytest.mark.parametrize("ends", ["after", "before"])
def test_a_freeze_of_a_job_that_began_while_the_guests_were_asked_is_not_somebody_elses(scene: Scene, ends: str) -> None:
    """The agent answers `frozen` in the middle of our own window; the job may have ended when that is written."""
    publish(scene)
    gate = scene.domain.agent

    def our_window() -> None:
        run = scene.claim()
        run.write({"phase": "freeze", "intent": {"will_freeze": True, "overlays": []}})
        gate.freeze_by_somebody_else()
        if ends == "before":
            run.write({"intent": {"will_freeze": False, "overlays": []}, "freeze": {"outcome": "frozen"}})
            run.finish(Ending())

    scene.ask()
    scene.domain.when_next(STATUS, our_window)
    assert publish(scene) == {"frozen": False, "frozen_since": None, "frozen_by": None}


def test_a_guest_that_a_job_of_ours_could_not_thaw_is_published_as_left_by_it(scene: Scene) -> None:
    publish(scene)
    job_id = scene.ask()
    scene.domain.agent.freeze_by_somebody_else()
    run = scene.claim()
    run.write({"intent": {"will_freeze": True, "overlays": []}})
    run.finish(Ending(GuestStillFrozen(domain="db1", tried_ms=100, message="no answer")))
    assert publish(scene)["frozen_by"] == by_job(job_id)


def test_a_job_that_was_seen_to_leave_the_guest_thawed_is_not_the_one(scene: Scene) -> None:
    assert scene.run().state == "succeeded"
    publish(scene)
    scene.domain.agent.freeze_by_somebody_else()
    assert publish(scene)["frozen_by"] == by_another()


def test_after_a_job_nobody_can_tell_until_the_guest_was_seen_thawed(scene: Scene) -> None:
    publish(scene)
    assert scene.run().state == "succeeded"
    scene.domain.agent.freeze_by_somebody_else()
    assert publish(scene)["frozen_by"] == by_unknown()


def test_a_foreign_freeze_is_looked_at_again_without_asking_anybody_else(scene: Scene) -> None:
    other = scene.add("db2")
    inventory = Inventory(scene.database, scene.host, HOST)
    scene.domain.agent.freeze_by_somebody_else()
    inventory.publish(NOBODY)
    assert inventory.sees_foreign_freezes
    before = looked_at(scene)
    scene.domain.log.clear()
    other.log.clear()

    assert inventory.look_again(NOBODY) is True
    assert looked_at(scene) > before
    assert [call for call in scene.domain.log if call.startswith("guest-")] == [STATUS]
    assert [call for call in other.log if call.startswith("guest-")] == []


def test_a_look_that_finds_it_thawed_asks_for_a_publication_and_one_at_a_busy_guest_is_none(scene: Scene) -> None:
    inventory = Inventory(scene.database, scene.host, HOST)
    scene.domain.agent.freeze_by_somebody_else()
    inventory.publish(NOBODY)
    before = looked_at(scene)
    scene.domain.agent.thaw_by_somebody_else()
    assert inventory.look_again(frozenset({scene.domain.uuid()})) is True
    assert inventory.look_again(NOBODY) is False
    assert looked_at(scene) == before
    inventory.publish(NOBODY)
    assert not inventory.sees_foreign_freezes


def looked_at(scene: Scene) -> datetime:
    with scene.database.read() as session:
        row = session.get(Domain, (HOST, scene.domain.uuid()))
    assert row is not None
    return row.published_at


# --- what a job says that finds its guest frozen --------------------------------------------------


@pytest.mark.parametrize("mode", ["required", "preferred"])
def test_a_job_that_finds_its_guest_frozen_says_who_and_since_when_and_sends_no_thaw(scene: Scene, mode: str) -> None:
    publish(scene)
    scene.domain.agent.freeze_by_somebody_else()
    known = publish(scene)
    error = error_of(scene.run(freeze={"mode": mode}))
    facts = {"domain": "db1", "frozen_by": by_another(), "frozen_since": known["frozen_since"]}
    assert (error["code"], error["facts"]) == ("guest_already_frozen", facts)
    left_alone(scene)


def test_a_job_that_sees_it_before_its_host_has_published_it_says_what_follows(scene: Scene) -> None:
    publish(scene)
    scene.domain.agent.freeze_by_somebody_else()
    for _ in range(2):
        # The second is no wiser for the first, which froze nothing.
        facts = error_of(scene.run())["facts"]
        assert facts["frozen_by"] == by_another()
        assert datetime.now(UTC) - datetime.fromisoformat(facts["frozen_since"]) < timedelta(seconds=30)
    left_alone(scene)


def test_a_guest_that_nobody_has_seen_before_is_frozen_by_nobody_known(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    assert error_of(scene.run())["facts"]["frozen_by"] == by_unknown()
    left_alone(scene)


def test_a_freeze_between_the_look_and_our_own_is_not_ours_and_not_thawed(scene: Scene) -> None:
    scene.domain.when_next(FREEZE, scene.domain.agent.freeze_by_somebody_else)
    error = error_of(scene.run())
    assert (error["code"], error["facts"]["frozen_by"]) == ("guest_already_frozen", by_another())
    assert datetime.now(UTC) - datetime.fromisoformat(error["facts"]["frozen_since"]) < timedelta(seconds=30)
    assert THAW not in scene.domain.log
    assert scene.domain.agent.is_frozen_flag


def test_a_database_that_is_away_does_not_hide_why_the_guest_is_refused(scene: Scene, sqlite_database: Database) -> None:
    scene.ask()
    run = scene.claim()
    away = JobRun(run.claim, AwayDatabase(sqlite_database.engine), scene.abandoned)
    assert away.foreign_freeze().by == by_unknown()


class AwayDatabase(Database):
    def read(self) -> Any:
        raise DatabaseUnavailable(reason="gone")


def test_a_preflight_says_who_and_since_when_and_sends_no_thaw(scene: Scene) -> None:
    publish(scene)
    scene.domain.agent.freeze_by_somebody_else()
    since = publish(scene)["frozen_since"]
    job = scene.run("preflight")
    assert job.result is not None
    (check,) = [check for check in job.result["checks"] if check["code"] == "guest_already_frozen"]
    expected = GuestAlreadyFrozen(domain="db1", frozen_by=by_another(), frozen_since=since)
    assert (check["status"], check["detail"]) == ("fail", expected.detail)
    left_alone(scene)


def test_looking_at_a_frozen_guest_thaws_nothing(scene: Scene) -> None:
    inventory = Inventory(scene.database, scene.host, HOST)
    scene.domain.agent.freeze_by_somebody_else()
    inventory.publish(NOBODY)
    scene.domain.fail_next(STATUS, agent_silent())
    inventory.look_again(NOBODY)
    inventory.publish(NOBODY)
    left_alone(scene)


def left_alone(scene: Scene) -> None:
    assert {FREEZE, THAW} & set(scene.domain.log) == set()
    assert scene.domain.agent.is_frozen_flag
    assert (scene.domain.points, scene.overlays()) == ([], [])
