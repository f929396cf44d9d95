"""The fuse that a dead worker left in its guest: recovery puts it out, after the thaw and never in its way."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.freeze import after_death, fuse
from service.model.fuse import FuseState
from tests.fakes import agent_silent
from tests.scenes.deaths import die, recovered, story
from tests.scenes.host import FREEZE, THAW, Scene

EXEC = "guest-exec"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


def left_frozen(scene: Scene, **freeze: object) -> str:
    """A job whose worker died just after the freeze."""
    scene.ask(freeze=freeze)
    job_id = die(scene, scene.domain.die_in(FREEZE, after=True))
    assert scene.domain.agent.frozen
    scene.domain.log.clear()
    return job_id


def test_a_fuse_is_put_out_after_the_thaw(scene: Scene) -> None:
    job_id = left_frozen(scene)
    assert scene.domain.agent.fuse is not None

    job = recovered(scene, job_id)

    assert scene.domain.agent.fuse is None
    assert (job.state, job.error) == ("queued", None)
    assert after_death.FUSE_STORIES[FuseState.disarmed] in story(job)
    assert scene.domain.log.index(THAW) < scene.domain.log.index(EXEC)


def test_a_fuse_is_put_out_where_somebody_has_thawed_before(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.agent.thaw_by_somebody_else()
    job = recovered(scene, job_id)
    assert (scene.domain.agent.fuse, THAW in scene.domain.log) == (None, False)
    assert f"{after_death.NOT_FROZEN} {after_death.FUSE_STORIES[FuseState.disarmed]}" in story(job)


def test_a_fuse_that_has_thawed_the_guest_is_told_of(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.agent.burn_fuse()
    job = recovered(scene, job_id)
    assert scene.domain.agent.fuse is None
    assert after_death.FUSE_STORIES[FuseState.fired] in story(job)


def test_a_fuse_that_cannot_be_put_out_is_no_error_of_the_recovery(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.fail_next(EXEC, agent_silent())
    job = recovered(scene, job_id)
    assert (job.state, job.error) == ("queued", None)
    assert scene.domain.agent.frozen == set()
    assert "fuse" not in story(job)


def test_the_fuse_of_a_guest_that_is_not_thawed_goes_on_burning(scene: Scene) -> None:
    job_id = left_frozen(scene)
    scene.domain.agent.answers = False
    assert recovered(scene, job_id).state == "interrupted"
    assert scene.domain.agent.fuse is not None
    assert EXEC not in scene.domain.log


def test_a_guest_that_somebody_else_froze_at_once_is_not_waited_for_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "FOREIGN_HOLD_S", 0.1)
    job_id = left_frozen(scene)
    scene.domain.when_next(EXEC, scene.domain.agent.freeze_by_somebody_else)
    job = recovered(scene, job_id)
    assert job.state == "queued"
    assert scene.domain.agent.is_frozen_flag
    assert scene.domain.agent.fuse is not None


def test_nothing_is_run_in_a_guest_whose_job_wanted_no_fuse(scene: Scene) -> None:
    job_id = left_frozen(scene, fuse=False)
    recovered(scene, job_id)
    assert EXEC not in scene.domain.log
