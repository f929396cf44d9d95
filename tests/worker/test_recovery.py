"""After a worker died: libvirt and the agent are asked what is true, the guest is thawed, and nothing in use is deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import LibvirtUnavailable
from service.freeze import after_death
from service.jobs.run import JobRun
from service.model.story import LAST_ATTEMPT, NOTHING_MADE, PHASE, WORKER_LOST
from service.records import queue
from tests.scenes.deaths import story
from tests.scenes.host import FREEZE, THAW, Scene, error_of, phases_of
from tests.scenes.told import tells


class Died(BaseException):
    """The process was killed: nothing of it runs any more, not even its error handling."""


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


class Corpse:
    """A job whose worker was killed at some moment, with its row as it was left."""

    def __init__(self, scene: Scene, **ask: Any) -> None:
        self.scene = scene
        self.job_id = scene.ask(**ask)
        self.run = scene.claim()

    @property
    def overlays(self) -> list[str]:
        mark = self.job_id[:8]
        return [f"db1-{target}.{mark}.qcow2" for target in ("vda", "vdb")]

    def left(self, *, will_freeze: bool, made: bool = True) -> None:
        """What the row and the folder look like after death in or before the window."""
        images = self.scene.images
        documents = [
            {
                "target": target,
                "base": str(images / f"db1-{target}.qcow2"),
                "base_format": "qcow2",
                "overlay": str(images / name),
                "virtual_size": 1 << 26,
            }
            for target, name in zip(("vda", "vdb"), self.overlays, strict=True)
        ]
        self.run.write({"phase": "freeze" if will_freeze else "prepare", "intent": {"will_freeze": will_freeze, "overlays": documents}})
        if made:
            for name in self.overlays:
                (images / name).touch()

    def took(self, *targets: str) -> None:
        """The snapshot had happened, for these disks."""
        for target, name in zip(("vda", "vdb"), self.overlays, strict=True):
            if target in targets:
                self.scene.domain.put_on(target, self.scene.images / name)

    def recover(self) -> Job:
        self.scene.die_in(self.run)
        self.scene.recovery(thaw_patience_s=0.2).recover(self.job_id)
        return self.scene.job(self.job_id)


def test_a_job_that_had_made_nothing_is_queued_again(database: Database, tmp_path: Path) -> None:
    corpse = Corpse(Scene(database, tmp_path, ("vda", "vdb")))
    corpse.run.write({"phase": "preflight"})
    job = corpse.recover()
    assert (job.state, job.verdict, job.error) == ("queued", None, None)
    assert tells(job, f"{WORKER_LOST} {NOTHING_MADE}", place=PHASE.format(phase="preflight"), attempt=1)
    assert phases_of(job)[-1] == ("recover", "warning")


def test_overlays_that_no_disk_uses_are_removed_and_the_job_is_queued_again(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=False)
    job = corpse.recover()
    assert job.state == "queued"
    assert scene.overlays() == []
    assert THAW not in scene.domain.log


def test_a_guest_that_was_left_frozen_is_thawed(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    scene.domain.agent.freeze_by_somebody_else()
    job = corpse.recover()
    assert not scene.domain.agent.frozen
    assert after_death.THAWED.format(count=2) in story(job)
    assert job.state == "queued"


def test_a_guest_that_is_not_frozen_is_not_thawed(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    assert after_death.NOT_FROZEN in story(corpse.recover())
    assert THAW not in scene.domain.log


def test_a_freeze_of_somebody_else_is_left_alone_when_this_job_had_sent_none(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=False)
    scene.domain.agent.freeze_by_somebody_else()
    corpse.recover()
    assert scene.domain.agent.frozen


def test_an_agent_that_says_nothing_at_first_is_sent_a_thaw_all_the_same(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    scene.domain.agent.freeze_by_somebody_else()
    scene.domain.answer_next("guest-fsfreeze-status", {"nothing": 1})
    assert corpse.recover().state == "queued"
    assert not scene.domain.agent.frozen


def test_a_point_that_was_taken_is_kept_as_crash_and_the_job_fails(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    corpse.took("vda", "vdb")
    scene.domain.agent.freeze_by_somebody_else()
    job = corpse.recover()
    assert not scene.domain.agent.frozen
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "worker_lost")
    assert [reason["code"] for reason in job.verdict_reasons] == ["worker_lost"]
    (point,) = scene.points()
    assert job.recovery_point is not None
    assert (point.verdict, point.id) == ("crash", job.recovery_point["id"])
    assert scene.overlays() == corpse.overlays


MIXED: dict[str, Callable[[Corpse], None]] = {
    "one disk moved": lambda corpse: corpse.took("vda"),
    "only the definition of the next start moved": lambda corpse: corpse.scene.domain.put_on(
        "vda", corpse.scene.images / corpse.overlays[0], live=False
    ),
}


@pytest.mark.parametrize("happen", MIXED.values(), ids=MIXED.keys())
def test_disks_of_which_some_moved_are_in_doubt_and_nothing_is_deleted(scene: Scene, happen: Callable[[Corpse], None]) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    happen(corpse)
    job = corpse.recover()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "disks_in_doubt")
    assert error_of(job)["facts"]["switched"] == "vda"
    assert scene.overlays() == corpse.overlays


def test_an_overlay_that_lies_below_a_newer_snapshot_of_somebody_else_is_never_deleted(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    corpse.took("vda", "vdb")
    for target in ("vda", "vdb"):
        scene.domain.put_on(target, scene.images / f"newer-{target}.qcow2")
    job = corpse.recover()
    assert scene.overlays() == corpse.overlays
    assert (job.state, error_of(job)["code"]) == ("failed", "disks_in_doubt")


def test_the_last_attempt_fails_instead_of_being_queued(scene: Scene) -> None:
    corpse = Corpse(scene, max_attempts=1)
    corpse.left(will_freeze=True)
    job = corpse.recover()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "worker_lost")
    assert tells(job, LAST_ATTEMPT, attempts=1)
    assert scene.overlays() == []


def test_a_cancel_that_came_meanwhile_is_obeyed(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    with scene.database.write() as session:
        queue.request_cancel(session, corpse.job_id)
    job = corpse.recover()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("cancelled", "none", "job_cancelled")


def test_a_domain_that_is_gone_ends_the_job(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    scene.domain.exists = False
    job = corpse.recover()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "domain_gone")
    assert len(list(scene.images.glob("*.qcow2"))) == 4


def test_a_domain_that_was_shut_off_has_nothing_frozen(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    scene.domain.shut_off(cleanly=False)
    job = corpse.recover()
    assert after_death.SHUT_OFF in story(job)
    assert (job.state, scene.overlays()) == ("queued", [])


def test_while_libvirt_is_away_nothing_is_decided(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    scene.host.is_away = True
    with pytest.raises(LibvirtUnavailable):
        corpse.recover()
    assert scene.job(corpse.job_id).state == "interrupted"
    assert scene.overlays() == corpse.overlays
    scene.host.is_away = False
    scene.recovery().recover(corpse.job_id)
    assert scene.job(corpse.job_id).state == "queued"


def test_a_libvirt_that_goes_away_while_recovery_looks_changes_nothing(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    corpse.took("vda", "vdb")
    scene.domain.when_next("guest-fsfreeze-status", lambda: scene.domain.libvirtd_goes_away(2))
    with pytest.raises(LibvirtUnavailable):
        corpse.recover()
    assert scene.job(corpse.job_id).state == "interrupted"
    assert scene.overlays() == corpse.overlays


def test_a_job_that_is_not_interrupted_is_left_alone(scene: Scene) -> None:
    job_id = scene.ask()
    scene.recovery().recover(job_id)
    scene.recovery().recover("no-such-job")
    assert (scene.job(job_id).state, scene.domain.log) == ("queued", [])


def test_the_next_attempt_succeeds_and_tells_the_whole_story(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    corpse.recover()
    scene.execution.execute(scene.claim())
    job = scene.job(corpse.job_id)
    assert (job.state, job.verdict, job.attempt) == ("succeeded", "filesystem", 2)
    assert [name for name, _ in phases_of(job)][:2] == ["recover", "preflight"]
    assert scene.sources() == {target: f"db1-{target}.{job.id[:8]}-2.qcow2" for target in ("vda", "vdb")}


def test_what_an_earlier_attempt_intended_is_not_held_against_the_next(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=True)
    corpse.recover()
    again = scene.claim()
    scene.domain.agent.freeze_by_somebody_else()
    scene.die_in(again)
    scene.recovery().recover(corpse.job_id)
    assert scene.domain.agent.frozen, "this attempt had frozen nothing"


@pytest.mark.parametrize("kind", ["preflight", "thaw"])
def test_a_job_of_another_kind_is_queued_again_without_a_verdict(scene: Scene, kind: str) -> None:
    job_id = scene.ask(kind)
    scene.die_in(scene.claim())
    scene.recovery().recover(job_id)
    assert (scene.job(job_id).state, scene.job(job_id).verdict) == ("queued", None)


@pytest.mark.parametrize("call", ["guest-ping", "block_capacity", "guest-exec", FREEZE, "snapshot_create", THAW])
def test_wherever_a_worker_dies_the_guest_is_thawed_and_the_disks_are_known(scene: Scene, call: str) -> None:
    """The real job, killed at each of its calls."""
    job_id = scene.ask()
    run: JobRun = scene.claim()
    frozen_then: list[set[str]] = []

    def die() -> None:
        frozen_then.append(set(scene.domain.agent.frozen))
        raise Died

    scene.domain.when_next(call, die)
    with pytest.raises(Died):
        scene.execution.execute(run)
    scene.domain.agent.frozen, scene.domain.agent.is_frozen_flag = frozen_then[0], bool(frozen_then[0])  # as `kill -9` leaves it
    scene.die_in(run)
    scene.recovery().recover(job_id)
    job = scene.job(job_id)
    assert not scene.domain.agent.frozen
    if job.state == "queued":
        assert scene.overlays() == []
        assert scene.sources() == {"vda": "db1-vda.qcow2", "vdb": "db1-vdb.qcow2"}
    else:
        assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "worker_lost")
        assert sorted(scene.sources().values()) == scene.overlays()
