"""A guest that may be frozen and cannot be thawed now: its job waits, says for what, and holds nothing that others need."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from service.db.engine import Database
from service.errors import GuestMayBeFrozen, LeaseLost
from service.freeze import after_death
from service.model.lifecycle import JobState
from service.model.story import WAITED
from service.records import queue
from service.worker.recovery_schedule import LOOK_AGAIN_S
from tests.scenes.deaths import die, recovered, story
from tests.scenes.host import FREEZE, HOST, THAW, Scene, error_of, phases_of
from tests.scenes.plant import Plant, wait_for
from tests.scenes.told import tells


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


@pytest.fixture
def plant(sqlite_database: Database, tmp_path: Path) -> Iterator[Plant]:
    built = Plant(sqlite_database, tmp_path)
    yield built
    built.close()


def left_frozen(scene: Scene) -> str:
    """A job whose worker died just after the freeze."""
    scene.ask()
    job_id = die(scene, scene.domain.die_in(FREEZE, after=True))
    assert scene.domain.agent.frozen
    return job_id


def waiting_recoveries() -> float:
    return REGISTRY.get_sample_value("stillpoint_recoveries_total", {"outcome": "waiting"}) or 0.0


def test_a_paused_guest_is_waited_for_and_its_row_says_so(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    job_id = left_frozen(scene)
    overlays = scene.overlays()
    scene.domain.pause()
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"]) == ("interrupted", "guest_may_be_frozen")
    assert error_of(job)["facts"] == {"domain": "db1", "state": "paused"}
    assert phases_of(job)[-1] == ("recover", "warning")
    assert "frozen" in story(job)
    assert (job.verdict, job.finished_at, scene.overlays()) == (None, None, overlays)


def test_a_paused_guest_is_thawed_when_it_runs_again_and_the_wait_is_told_once(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.pause()
    for _ in range(3):
        recovered(scene, job_id)
    scene.domain.resume()
    job = recovered(scene, job_id)
    assert not scene.domain.agent.frozen
    assert (job.state, job.error) == ("queued", None)
    assert [name for name, _ in phases_of(job)].count("recover") == 1
    assert after_death.THAWED.format(count=2) in story(job)
    assert tells(job, WAITED, why=GuestMayBeFrozen(domain="db1", state="paused").detail)
    assert job.phases[-1]["duration_ms"] is not None


def test_a_paused_guest_that_is_shut_off_is_waited_for_no_longer(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.pause()
    recovered(scene, job_id)
    scene.domain.shut_off(cleanly=False)
    job = recovered(scene, job_id)
    assert (job.state, scene.overlays()) == ("queued", [])
    assert after_death.SHUT_OFF in story(job)


def test_a_guest_whose_agent_answers_nothing_is_thawed_as_soon_as_it_answers(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.agent.answers = False
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"]) == ("interrupted", "guest_still_frozen")
    assert after_death.NOT_THAWED in story(job)
    scene.domain.agent.answers = True
    assert recovered(scene, job_id).state == "queued"
    assert not scene.domain.agent.frozen


def test_a_cancel_is_obeyed_after_the_thaw_and_not_before(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.pause()
    recovered(scene, job_id)
    with scene.database.write() as session:
        queue.request_cancel(session, job_id)
    assert recovered(scene, job_id).state == "interrupted"
    scene.domain.resume()
    job = recovered(scene, job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("cancelled", "none", "job_cancelled")
    assert not scene.domain.agent.frozen
    assert scene.overlays() == []


def test_a_job_that_waits_holds_its_domain_but_no_slot_of_its_host(scene: Scene) -> None:
    with scene.database.write() as session:
        queue.ensure_slots(session, f"host:{HOST}:quick", 1)
    job_id = left_frozen(scene)
    scene.domain.pause()
    recovered(scene, job_id)
    scene.ask()
    other = scene.ask(domain=scene.add("db2"))
    thaw = scene.ask("thaw")
    assert {scene.claim().claim.job_id, scene.claim().claim.job_id} == {other, thaw}
    with scene.database.write() as session:
        assert queue.claim(session, HOST, "me", 60) is None


def test_a_wait_is_written_and_counted_once(scene: Scene) -> None:
    before = waiting_recoveries()
    job_id = left_frozen(scene)
    scene.domain.pause()
    written = recovered(scene, job_id).updated_at
    assert recovered(scene, job_id).updated_at == written
    assert waiting_recoveries() == before + 1


def test_what_it_waits_for_is_written_anew_when_that_changes(scene: Scene) -> None:
    before = waiting_recoveries()
    job_id = left_frozen(scene)
    scene.domain.pause()
    recovered(scene, job_id)
    scene.domain.resume()
    scene.domain.agent.answers = False
    job = recovered(scene, job_id)
    assert error_of(job)["code"] == "guest_still_frozen"
    assert [name for name, _ in phases_of(job)].count("recover") == 1
    assert waiting_recoveries() == before + 1, "it is one wait"


def test_a_guest_that_was_started_anew_is_not_waited_for_because_its_agent_is_silent(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.agent.answers = False
    assert recovered(scene, job_id).state == "interrupted"
    scene.domain.power_cycle()
    job = recovered(scene, job_id)
    assert job.state == "queued"
    assert after_death.RESTARTED in story(job)


def test_looks_come_less_and_less_often_and_at_once_when_something_happens_on_the_host(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.pause()
    recovery = scene.recovery()
    assert recovery.is_due(job_id)
    recovery.recover(job_id)
    assert not recovery.is_due(job_id)
    time.sleep(LOOK_AGAIN_S + 0.05)
    assert recovery.is_due(job_id)
    recovery.recover(job_id)
    time.sleep(LOOK_AGAIN_S + 0.05)
    assert not recovery.is_due(job_id), "the second pause is longer"
    scene.host.change()
    assert recovery.is_due(job_id)


def test_a_look_that_failed_is_not_repeated_at_once(scene: Scene) -> None:
    job_id = left_frozen(scene)
    recovery = scene.recovery()
    scene.domain.when_next("state", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recovery.recover(job_id)
    assert not recovery.is_due(job_id)


def test_nothing_is_kept_of_a_job_that_was_resolved_or_is_gone(scene: Scene) -> None:
    job_id = left_frozen(scene)
    recovery = scene.recovery()
    recovery.recover(job_id)
    recovery.recover("no-such-job")
    assert recovery.is_due(job_id)
    assert recovery.is_due("no-such-job")


def test_a_note_is_written_for_interrupted_jobs_only(scene: Scene) -> None:
    job_id = scene.ask()
    with pytest.raises(LeaseLost), scene.database.write() as session:
        queue.note_interrupted(session, job_id, {"error": None})
    with pytest.raises(ValueError, match="state"), scene.database.write() as session:
        queue.note_interrupted(session, job_id, {"state": JobState.failed})


def test_a_worker_waits_without_asking_all_the_time_and_thaws_when_the_guest_runs_again(plant: Plant) -> None:
    scene = plant.scene
    job_id = left_frozen(scene)
    scene.domain.pause()
    scene.domain.log.clear()
    plant.start(poll_seconds=0.01, inventory_seconds=60)
    wait_for(lambda: scene.job(job_id).error is not None, "the note of the wait")
    time.sleep(1.5)
    assert THAW not in scene.domain.log
    assert scene.domain.log.count("state") < 20, "some are the inventory's"
    scene.domain.resume()
    resumed = time.monotonic()
    scene.host.change()
    wait_for(lambda: not scene.domain.agent.frozen, "the thaw")
    # The next look at all domains is a minute away.
    assert time.monotonic() - resumed < 30
    assert plant.wait_end(job_id).state == "succeeded"
