"""From the rules to the files: what retention asks for goes, what is kept verifies, and a death on the way loses nothing."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database, database_now
from service.db.tables import Event, Job, RecoveryPoint, RetentionLook
from service.jobs.prune import Prune
from service.jobs.run import JobRun
from service.model.lifecycle import JobState, PointState
from service.records import points, policies, queue
from service.records.queue import NewJob
from service.repository.removing import REMOVED_PREFIX
from service.repository.store import Repository
from service.scheduler.retention import RetentionLooks
from tests.api.world import add_host
from tests.scenes.host import HOST, error_of
from tests.scenes.retained import NIGHTLY, a_policy, add_policy
from tests.scenes.sealed import Sealed
from tests.scenes.verified import Verifying

MIB = 1 << 20


class World(Verifying):
    """Two full points, `old` and `older`, and an increment on each newer one: a track that keeps the last two."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        super().__init__(database, folder, made.copied(folder / "repository"))
        self.sealed.register(database)
        with database.write() as session:
            add_host(session, HOST)
            add_policy(session, retention={"keep_last": 2})
        self.sealed.list_all(database)
        self.oldest, self.older, self.base, self.newest = self.sealed.points

    def look(self) -> int:
        return RetentionLooks(self.database, lambda: None).look()

    def run(self) -> Job:
        job_id = self.scene.claim()
        self.scene.execution.execute(job_id)
        return self.scene.job(job_id.claim.job_id)

    def on_record(self) -> set[str]:
        with self.database.read() as session:
            return set(session.scalars(select(RecoveryPoint.id)))

    def in_folders(self) -> set[str]:
        return {folder.name for folder in self.sealed.folder(self.newest).parent.iterdir()}

    def has_left(self, *point_ids: str) -> bool:
        """Exactly these points are there, and each is what it says."""
        names = {self.sealed.folder(each).name for each in point_ids}
        is_exact = (self.in_folders(), self.on_record()) == (names, set(point_ids))
        return is_exact and all(self.verify(each).state == "succeeded" for each in point_ids)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    sealed = Sealed(tmp_path_factory.mktemp("made") / "repository", labels=NIGHTLY.as_labels())
    for n in range(4):
        sealed.seal((n + 1, n * MIB, MIB), is_full=n in (0, 1, 2))
    return sealed


@pytest.fixture
def world(made: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, made)


def pruned(job: Job) -> tuple[list[str], dict[str, str]]:
    """What was removed, and why the others stayed."""
    assert job.result is not None
    told = job.result["prune"]
    return [point["id"] for point in told["removed"]], {point["id"]: point["reason"]["code"] for point in told["stayed"]}


def test_what_no_rule_keeps_goes_and_what_is_kept_verifies(world: World) -> None:
    assert world.look() == 1
    job = world.run()
    assert (job.state, *pruned(job)) == ("succeeded", sorted([world.oldest, world.older]), {})
    assert world.has_left(world.base, world.newest)


def test_the_result_and_the_events_say_by_which_rule(world: World) -> None:
    world.look()
    job = world.run()
    why = {"policy": "production", "track": "nightly", "reasons": [{"code": "too_old", "facts": {}}]}
    assert job.result is not None
    assert [point["retention"] for point in job.result["prune"]["removed"]] == [why, why]
    with world.database.read() as session:
        events = session.scalars(select(Event).where(Event.point_id == world.oldest).order_by(Event.id)).all()
    assert [(event.moved_to, event.facts.get("retention")) for event in events[1:]] == [("leaving", why), ("removed", why)]


# --- the rules are asked again ----------------------------------------------------------------------


def _keep_more(world: World) -> None:
    with world.database.write() as session:
        row = policies.get(session, "production")
        policies.change(session, row, a_policy(retention={"keep_last": 4}), database_now(session))


def _remove_policy(world: World) -> None:
    with world.database.write() as session:
        policies.remove(session, "production")


def _lose_a_newer_point(world: World) -> None:
    """With the increment that stands on it, so that none of the two that were kept is whole."""
    with world.database.write() as session:
        points.set_state(session, world.base, PointState.damaged, now=database_now(session))


@pytest.mark.parametrize("meanwhile", [_keep_more, _remove_policy, _lose_a_newer_point])
def test_what_a_rule_keeps_since_the_job_was_made_stays_and_is_not_an_error(world: World, meanwhile: Any) -> None:
    world.look()
    meanwhile(world)
    job = world.run()
    assert (job.state, *pruned(job)) == ("succeeded", [], {world.oldest: "point_kept", world.older: "point_kept"})
    assert world.on_record() == set(world.sealed.points)


def test_a_point_that_was_pinned_meanwhile_stays_and_the_others_go(world: World) -> None:
    world.look()
    with world.database.write() as session:
        points.set_pinned(session, world.older, pinned=True)
    job = world.run()
    assert (job.state, *pruned(job)) == ("succeeded", [world.oldest], {world.older: "point_kept"})
    assert world.has_left(world.older, world.base, world.newest)


@pytest.mark.parametrize("kind", ["restore", "verify"])
def test_what_a_job_reads_that_came_meanwhile_is_not_taken_from_it(world: World, kind: str) -> None:
    world.look()
    domain = "d1" if kind == "restore" else None
    asked = {"kind": kind, "recovery_point": world.oldest, "mode": "files"}
    new = NewJob(kind, domain, "db1", "hv2", asked, {}, point_id=world.oldest, repository_id=world.sealed.id)
    with world.database.write() as session:
        queue.enqueue(session, new)
    job = world.run()
    assert (job.state, *pruned(job)) == ("succeeded", [world.older], {world.oldest: "point_kept"})
    assert world.has_left(world.oldest, world.base, world.newest)


def test_a_repository_that_is_gone_is_an_error_and_nothing_is_given_up(world: World) -> None:
    world.look()
    world.sealed.path.rename(world.sealed.path.with_name("elsewhere"))
    assert error_of(world.run())["code"] == "repository_gone"
    world.sealed.path.with_name("elsewhere").rename(world.sealed.path)
    assert world.has_left(*world.sealed.points)


# --- killed between the steps -----------------------------------------------------------------------


class _DiesBefore(Repository):
    """The point is marked, and the hand was not asked yet."""

    def remove_point(self, folder: str, **_: Any) -> int:
        raise SystemExit(folder)


class _DiesInTheMiddle(Repository):
    """The folder has its other name, and some of its files are gone."""

    def remove_point(self, folder: str, **_: Any) -> int:
        place = Path(self.path, folder)
        aside = place.rename(place.with_name(f"{REMOVED_PREFIX}{place.name}"))
        (aside / "manifest.json").unlink()
        raise SystemExit(folder)


class _DiesAfter(Repository):
    """The files are gone, and the database does not know that yet."""

    def remove_point(self, folder: str, **_: Any) -> int:
        super().remove_point(folder)
        raise SystemExit(folder)


DEATHS = [_DiesBefore, _DiesInTheMiddle, _DiesAfter]


def die(world: World, dies: type[Repository]) -> JobRun:
    world.look()
    run: JobRun = world.scene.claim()
    with pytest.raises(SystemExit):
        Prune(open_repository=dies).run(run, world.scene.ours)
    return run


@pytest.mark.parametrize("dies", DEATHS)
def test_after_a_death_between_marking_and_removing_the_next_attempt_finishes(world: World, dies: type[Repository]) -> None:
    run = die(world, dies)
    run.finish(Prune().run(run, world.scene.ours))
    job = world.scene.job(run.claim.job_id)
    assert (job.state, set(pruned(job)[0])) == ("succeeded", {world.oldest, world.older})
    assert world.has_left(world.base, world.newest)


@pytest.mark.parametrize("dies", DEATHS)
def test_what_was_marked_goes_though_a_rule_would_keep_it_now_and_the_rest_stays(world: World, dies: type[Repository]) -> None:
    """Its files may be gone already. Nothing else goes by a rule that has changed."""
    run = die(world, dies)
    marked, other = sorted([world.oldest, world.older])
    _keep_more(world)
    run.finish(Prune().run(run, world.scene.ours))
    job = world.scene.job(run.claim.job_id)
    assert (job.state, *pruned(job)) == ("succeeded", [marked], {other: "point_kept"})
    assert world.has_left(other, world.base, world.newest)


def test_a_job_that_died_for_good_is_finished_by_the_next_look(world: World) -> None:
    run = die(world, _DiesInTheMiddle)
    with world.database.write() as session:
        queue.finish(session, run.claim.job_id, run.claim.lease_token, JobState.failed, {"phase": None})
    _keep_more(world)
    with world.database.write() as session:
        session.execute(update(RetentionLook).values(due_at=database_now(session)))
    assert world.look() == 1
    marked, other = sorted([world.oldest, world.older])
    assert pruned(world.run()) == ([marked], {})
    assert world.has_left(other, world.base, world.newest)
