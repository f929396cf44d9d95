"""A host that was forgotten comes back: its guests are looked at and thawed, its jobs are told of it, and nothing else is changed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.freeze import after_death
from service.records import forgotten_host
from service.worker.returned_host import ReturnedHost
from tests.api.world import change_job
from tests.fakes.domain import MIGRATED
from tests.scenes.deaths import die, story
from tests.scenes.host import FREEZE, HOST, THAW, Scene, error_of
from tests.scenes.registered_hosts import SILENCE_S, heard_ago, register


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def forgotten_in(scene: Scene, call: str, *, after: bool = False) -> str:
    """A job whose worker died at this call, on a host that was forgotten since."""
    scene.ask(freeze={"preflush": False})
    job_id = die(scene, scene.domain.die_in(call, after=after))
    register(scene.database, HOST)
    heard_ago(scene.database, SILENCE_S + 5, HOST)
    with scene.database.write() as session:
        forgotten_host.forget(session, HOST)
    return job_id


def returned(scene: Scene) -> ReturnedHost:
    return ReturnedHost(scene.database, scene.host, HOST, None)


def looked(scene: Scene, job_id: str) -> Job:
    host = returned(scene)
    assert host.due() == [job_id]
    host.look(job_id)
    return scene.job(job_id)


def test_a_guest_that_was_left_frozen_is_thawed_and_the_job_stays_failed(scene: Scene) -> None:
    job_id = forgotten_in(scene, FREEZE, after=True)
    left = scene.overlays()
    assert scene.domain.agent.frozen

    job = looked(scene, job_id)

    assert not scene.domain.agent.frozen
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", "host_forgotten", "none")
    assert after_death.THAWED.format(count=2) in story(job)
    assert (scene.overlays(), scene.points()) == (left, [])
    assert returned(scene).due() == []


def test_where_the_disks_are_is_told_and_they_are_left_there(scene: Scene) -> None:
    job_id = forgotten_in(scene, "snapshot_create", after=True)
    on = scene.sources()
    job = looked(scene, job_id)
    assert scene.sources() == on
    assert all(name in story(job) for name in on.values())
    assert scene.points() == []


def test_a_guest_that_does_not_answer_is_looked_at_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.worker.returned_host.THAW_PATIENCE_S", 0.1)
    # The next look would be due before this one ends, if the machine is busy.
    monkeypatch.setattr("service.worker.recovery_schedule.LOOK_AGAIN_S", 600.0)
    job_id = forgotten_in(scene, FREEZE, after=True)
    scene.domain.agent.answers = False
    host = returned(scene)
    host.look(job_id)
    assert host.due() == []
    scene.domain.agent.answers = True
    scene.host.change()
    assert host.due() == [job_id]
    host.look(job_id)
    assert not scene.domain.agent.frozen
    assert host.due() == []


@pytest.mark.parametrize("state", ["gone", "migrated"])
def test_a_guest_that_is_elsewhere_now_is_left_alone(scene: Scene, state: str) -> None:
    job_id = forgotten_in(scene, FREEZE, after=True)
    if state == "gone":
        scene.domain.exists = False
    else:
        scene.domain.state_now = MIGRATED
    looked(scene, job_id)
    assert THAW not in scene.domain.log
    assert returned(scene).due() == []


def test_while_another_job_has_the_guest_it_is_not_thawed(scene: Scene) -> None:
    job_id = forgotten_in(scene, FREEZE, after=True)
    other = scene.ask()
    with scene.database.write() as session:
        change_job(session, other, state="running", lease_until=datetime.now(UTC) + timedelta(minutes=1))
    assert returned(scene).due() == []
    with scene.database.write() as session:
        change_job(session, other, state="failed")
    assert returned(scene).due() == [job_id]
