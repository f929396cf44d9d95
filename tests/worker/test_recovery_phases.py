"""A worker that dies at each boundary of a job: the guest is thawed, the disks are known, and the story is true."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.db.engine import Database
from service.freeze import after_death
from service.model.fuse import FuseState
from service.model.story import NOT_JUDGED, NOT_RECORDED, NOTHING_MADE, PHASE, POINT_KEPT, ROLLED_BACK, WINDOW, WORKER_LOST
from tests.fakes import FakeDomain, libvirt_error
from tests.scenes.deaths import die, doomed, recovered, story
from tests.scenes.host import FREEZE, THAW, Scene, error_of, phases_of
from tests.scenes.windows import WindowsScene

DISARMED = after_death.FUSE_STORIES[FuseState.disarmed]
THAWED = f"{after_death.THAWED.format(count=2)} {DISARMED}"
NOT_FROZEN = f"{after_death.NOT_FROZEN} {DISARMED}"


def lost_in(phase: str) -> str:
    return WORKER_LOST.format(place=PHASE.format(phase=phase), attempt=1)


@dataclass(frozen=True)
class Death:
    """`frozen`: what the worker leaves. `told`: the story after its first sentence."""

    call: str
    place: str
    told: tuple[str, ...]
    after: bool = False
    frozen: bool = False
    point: str | None = None

    def moment(self, domain: FakeDomain) -> threading.Event:
        return domain.die_in(self.call, after=self.after)


DEATHS: dict[str, Death] = {
    "at the first look": Death("guest-ping", PHASE.format(phase="preflight"), (NOTHING_MADE,)),
    "while the overlays are planned": Death("block_capacity", PHASE.format(phase="prepare"), (NOTHING_MADE,)),
    "before freeze is sent": Death(FREEZE, WINDOW, (NOT_FROZEN, ROLLED_BACK)),
    "before freeze is answered": Death(FREEZE, WINDOW, (THAWED, ROLLED_BACK), after=True, frozen=True),
    "before the point in time": Death("snapshot_create", WINDOW, (THAWED, ROLLED_BACK), frozen=True),
    "after the point in time": Death("snapshot_create", WINDOW, (THAWED, POINT_KEPT), after=True, frozen=True, point=NOT_RECORDED),
    "before thaw is sent": Death(THAW, WINDOW, (THAWED, POINT_KEPT), frozen=True, point=NOT_RECORDED),
    "before thaw is answered": Death(THAW, WINDOW, (NOT_FROZEN, POINT_KEPT), after=True, point=NOT_RECORDED),
}


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())
def test_a_death_at_a_boundary(scene: Scene, death: Death) -> None:
    scene.ask(freeze={"preflush": False})
    job_id = die(scene, death.moment(scene.domain))
    assert bool(scene.domain.agent.frozen) is death.frozen
    job = recovered(scene, job_id)
    assert not scene.domain.agent.frozen
    assert story(job) == " ".join([WORKER_LOST.format(place=death.place, attempt=1), *death.told])
    assert job.phase is None
    assert (job.freeze, job.timing) == (None, None), "the window was never recorded"
    if death.point is None:
        assert (job.state, job.verdict, scene.points()) == ("queued", None, [])
        assert (scene.overlays(), scene.sources()) == ([], {"vda": "db1-vda.qcow2", "vdb": "db1-vdb.qcow2"})
    else:
        assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "worker_lost")
        assert [reason["detail"] for reason in job.verdict_reasons] == [death.point]
        assert [point.verdict for point in scene.points()] == ["crash"]
        assert scene.overlays() == sorted(scene.sources().values())


FLUSH_DEATHS = {"as the flush begins": ("guest-exec", NOTHING_MADE), "as the flush is waited for": ("guest-exec-status", ROLLED_BACK)}


@pytest.mark.parametrize(("call", "told"), FLUSH_DEATHS.values(), ids=FLUSH_DEATHS.keys())
def test_a_death_while_the_guest_is_flushed(scene: Scene, call: str, told: str) -> None:
    """The first guest-exec and its status are the survey's, the second the flush's: overlays are made while the guest flushes."""
    scene.ask()
    job = recovered(scene, die(scene, scene.domain.die_in(call, skip=1)))
    assert story(job) == f"{lost_in('prepare')} {told}"
    assert scene.overlays() == []


def test_a_death_after_the_window_keeps_what_was_seen_and_says_that_it_was_not_judged(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    scene.ask()
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    assert story(job) == f"{lost_in('evaluate')} {POINT_KEPT}"
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "worker_lost")
    assert [reason["detail"] for reason in job.verdict_reasons] == [NOT_JUDGED]
    assert job.freeze is not None
    assert job.timing is not None
    assert (job.freeze["outcome"], job.freeze["thaw_outcome"]) == ("frozen", "completed")
    assert job.timing["hold_ms"] > 0
    assert [name for name, _ in phases_of(job)] == ["preflight", "prepare", "freeze", "point_in_time", "thaw", "recover"]
    taken = next(phase for phase in job.phases if phase["name"] == "point_in_time")
    (point,) = scene.points()
    assert point.point_in_time_at.isoformat() >= taken["started_at"].replace("Z", "+00:00")


@pytest.mark.windows
def test_a_death_while_the_writers_are_read_after_the_thaw(sqlite_database: Database, tmp_path: Path) -> None:
    scene = WindowsScene(sqlite_database, tmp_path)
    domain = scene.play("healthy-2022")
    scene.ask(domain=domain)
    run = scene.claim()
    after_the_thaw = threading.Event()

    def tell(inner: threading.Event) -> None:
        if inner.wait(10):
            after_the_thaw.set()

    def meet_death() -> None:
        inner = domain.die_in("guest-exec")
        threading.Thread(target=tell, args=(inner,), daemon=True).start()

    domain.when_next(THAW, meet_death)
    job = recovered(scene, die(scene, after_the_thaw, run))
    assert story(job) == f"{lost_in('writers_after')} {POINT_KEPT}"
    assert (job.state, job.verdict) == ("failed", "crash")
    assert job.freeze is not None
    assert job.freeze["thaw_outcome"] == "completed"


def freeze_anew(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()


def test_a_guest_that_somebody_froze_after_the_answered_thaw_is_theirs(scene: Scene) -> None:
    scene.ask()
    run = doomed(scene)
    job_id = die(scene, run.at_the_end, run)
    thaws = scene.domain.log.count(THAW)
    freeze_anew(scene)
    job = recovered(scene, job_id)
    assert scene.domain.agent.frozen
    assert scene.domain.log.count(THAW) == thaws
    assert after_death.FROZEN_BY_ANOTHER in story(job)


NO_FREEZE_OF_OURS: dict[str, Callable[[Scene], threading.Event]] = {
    "in preflight": lambda scene: scene.domain.die_in("guest-get-osinfo"),
    "in prepare": lambda scene: scene.domain.die_in("block_capacity"),
}


@pytest.mark.parametrize("moment", NO_FREEZE_OF_OURS.values(), ids=NO_FREEZE_OF_OURS.keys())
def test_a_guest_that_somebody_froze_before_ours_was_sent_is_reported_and_left(
    scene: Scene, moment: Callable[[Scene], threading.Event], capsys: pytest.CaptureFixture[str]
) -> None:
    scene.ask()
    job_id = die(scene, moment(scene))
    freeze_anew(scene)
    job = recovered(scene, job_id)
    assert scene.domain.agent.frozen
    assert THAW not in scene.domain.log
    assert after_death.FROZEN_BY_ANOTHER in story(job)
    logged = capsys.readouterr()
    assert "guest_frozen_by_somebody_else" in logged.out + logged.err


def test_an_attempt_after_one_that_recorded_its_window_shows_nothing_of_it(scene: Scene) -> None:
    """Freeze held and the snapshot failed: the row has freeze and timing of an attempt that left nothing."""
    scene.ask()
    scene.domain.fail_next("snapshot_create", libvirt_error(1, "no"))
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    assert (job.state, job.freeze, job.timing, job.intent) == ("queued", None, None, None)
