"""The emergency thaw: sent whatever the agent says, answered or reported."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.errors import DomainPaused, GuestStillFrozen, NoAgentChannel
from service.jobs.emergency import thaw_guest
from tests.fakes import agent_error, agent_silent
from tests.scenes.host import THAW, Scene, error_of, phases_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def test_a_frozen_guest_is_thawed(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    result = thaw_guest(scene.host.guest("db1"))
    assert (result.was_frozen, result.thawed, result.message, result.frozen_now) == (True, 2, None, False)


def test_a_guest_that_says_it_is_thawed_is_sent_a_thaw_all_the_same(scene: Scene) -> None:
    result = thaw_guest(scene.host.guest("db1"))
    assert (result.was_frozen, result.thawed, result.frozen_now) == (False, 0, False)
    assert THAW in scene.domain.log


def test_an_agent_that_does_not_say_is_thawed(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    scene.domain.fail_next("guest-fsfreeze-status", agent_silent())
    result = thaw_guest(scene.host.guest("db1"))
    assert (result.was_frozen, result.thawed) == (None, 2)


def test_an_error_of_the_agent_is_kept_as_its_answer(scene: Scene) -> None:
    scene.domain.fail_next(THAW, agent_error(THAW, "fsfreeze hook has failed with status 1"), after=True)
    result = thaw_guest(scene.host.guest("db1"))
    assert (result.thawed, result.message) == (None, "fsfreeze hook has failed with status 1")


def test_a_guest_that_never_answers_is_reported(scene: Scene) -> None:
    scene.domain.agent.answers = False
    with pytest.raises(GuestStillFrozen) as frozen:
        thaw_guest(scene.host.guest("db1"), patience_s=0.2)
    assert (frozen.value.facts["domain"], frozen.value.facts["tried_ms"]) == ("db1", 200)


def test_a_paused_domain_cannot_be_thawed(scene: Scene) -> None:
    scene.domain.pause()
    with pytest.raises(DomainPaused) as paused:
        thaw_guest(scene.host.guest("db1"))
    assert (paused.value.facts["domain"], paused.value.facts["state"]) == ("db1", "paused")


def test_a_domain_without_a_channel_cannot_be_thawed(scene: Scene) -> None:
    scene.domain.channel = False
    with pytest.raises(NoAgentChannel):
        thaw_guest(scene.host.guest("db1"))


def test_as_a_job_it_leaves_its_answer_in_the_result(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path)
    scene.domain.agent.freeze_by_somebody_else()
    job = scene.run("thaw")
    assert (job.state, job.verdict) == ("succeeded", None)
    assert job.result == {"domain": "db1", "was_frozen": True, "thawed": 1, "message": None, "frozen_now": False}
    assert phases_of(job) == [("thaw", "ok")]


def test_as_a_job_its_failure_is_in_the_row(scene: Scene) -> None:
    scene.domain.pause()
    job = scene.run("thaw")
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", None, "domain_paused")
    assert phases_of(job) == [("thaw", "failed")]
