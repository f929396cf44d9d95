"""The job kind prune: a point goes only if nothing stands on it and nothing reads it, and a prune that was killed is finished."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db import documents
from service.db.base import table_of
from service.db.engine import Database, database_now
from service.db.tables import Domain, Event, Host, Job, RecoveryPoint
from service.errors import RecoveryPointNotFound
from service.jobs.prune import Prune
from service.jobs.run import JobRun
from service.model.kinds import JobKind
from service.model.lifecycle import PointState
from service.records import points, queue, removal
from service.records.queue import NewJob
from service.repository.removing import REMOVED_PREFIX
from service.repository.store import Repository
from tests.scenes.host import HOST, error_of
from tests.scenes.sealed import BEGIN, DOMAIN, Sealed
from tests.scenes.verified import Verifying

MIB = 1 << 20


class World(Verifying):
    """A host with a repository of one full point and two increments: `full`, `middle`, `top`."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        super().__init__(database, folder, made.copied(folder / "repository"))
        self.sealed.register(database)
        self.sealed.list_all(database)
        self.full, self.middle, self.top = self.sealed.points

    def ask_prune(self, *point_ids: str, **request: Any) -> str:
        asked = {"kind": "prune", "repository": self.sealed.id, "recovery_points": list(point_ids), **request}
        new = NewJob(JobKind.prune.value, None, None, HOST, asked, {}, repository_id=self.sealed.id)
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def prune(self, *point_ids: str, **request: Any) -> Job:
        job_id = self.ask_prune(*point_ids, **request)
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)

    def on_record(self) -> set[str]:
        with self.database.read() as session:
            return set(session.scalars(select(RecoveryPoint.id)))

    def folders(self) -> set[str]:
        """The names of all folders of this domain, unfinished and removed ones too."""
        return {folder.name for folder in self.sealed.folder(self.full).parent.iterdir()}

    def are_there(self, *point_ids: str) -> bool:
        return self.folders() == {self.sealed.folder(each).name for each in point_ids} and self.on_record() == set(point_ids)

    def still_verifies(self, point_id: str) -> bool:
        return bool(self.verify(point_id).state == "succeeded")


@pytest.fixture
def world(three_points: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, three_points)


def removed_by(job: Job) -> list[str]:
    assert job.result is not None
    return [point["id"] for point in job.result["prune"]["removed"]]


def why_stayed(job: Job) -> dict[str, str]:
    assert job.result is not None
    return {point["id"]: point["reason"]["code"] for point in job.result["prune"]["stayed"]}


# --- what goes --------------------------------------------------------------------------------------


def test_the_newest_point_goes_with_its_files_and_those_below_it_stay_good(world: World) -> None:
    size = sum(file.stat().st_blocks * 512 for file in world.sealed.folder(world.top).iterdir())
    job = world.prune(world.top)
    assert (job.state, removed_by(job)) == ("succeeded", [world.top])
    assert job.result is not None
    assert job.result["prune"]["freed_bytes"] == size > 0
    assert world.are_there(world.full, world.middle)
    assert world.still_verifies(world.middle)


def test_points_that_go_together_go_from_the_top_down(world: World) -> None:
    job = world.prune(world.full, world.middle, world.top)
    assert (job.state, removed_by(job)) == ("succeeded", [world.top, world.middle, world.full])
    assert world.are_there()


def test_with_needing_takes_all_that_stand_on_the_point(world: World) -> None:
    job = world.prune(world.middle, with_needing=True)
    assert (job.state, removed_by(job)) == ("succeeded", [world.top, world.middle])
    assert world.are_there(world.full)
    assert world.still_verifies(world.full)


def test_a_damaged_point_can_go(world: World) -> None:
    world.sealed.damage(world.top)
    assert error_of(world.verify(world.top))["code"] == "point_damaged"
    assert world.prune(world.top).state == "succeeded"
    assert world.are_there(world.full, world.middle)


def test_a_point_whose_folder_is_gone_is_taken_off_the_list(world: World) -> None:
    shutil.rmtree(world.sealed.folder(world.top))
    assert world.prune(world.top).state == "succeeded"
    assert world.on_record() == {world.full, world.middle}


def test_each_point_that_went_leaves_two_events(world: World) -> None:
    job = world.prune(world.top)
    with world.database.read() as session:
        events = session.scalars(select(Event).where(Event.point_id == world.top).order_by(Event.id)).all()
    assert [event.moved_to for event in events] == ["sealed", "leaving", "removed"]
    assert all(event.facts["job_id"] == job.id for event in events[1:])


# --- what stays -------------------------------------------------------------------------------------


def test_a_point_on_which_others_stand_stays_and_the_job_names_them(world: World) -> None:
    job = world.prune(world.full)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_needed")
    assert error_of(job)["facts"]["needed_by"] == sorted([world.middle, world.top])
    assert world.are_there(world.full, world.middle, world.top)


def test_what_can_go_goes_though_another_point_stays(world: World) -> None:
    with world.database.write() as session:
        points.set_pinned(session, world.middle, pinned=True)
    job = world.prune(world.top, world.middle)
    assert (job.state, removed_by(job), why_stayed(job)) == ("failed", [world.top], {world.middle: "point_pinned"})
    assert world.are_there(world.full, world.middle)


def test_a_pinned_point_goes_after_it_was_unpinned(world: World) -> None:
    with world.database.write() as session:
        points.set_pinned(session, world.top, pinned=True)
    assert error_of(world.prune(world.top))["code"] == "point_pinned"
    with world.database.write() as session:
        points.set_pinned(session, world.top, pinned=False)
    assert world.prune(world.top).state == "succeeded"


@pytest.mark.parametrize("kind", ["restore", "verify"])
def test_a_point_that_a_job_will_read_stays_and_so_does_all_below_it(world: World, kind: str) -> None:
    """Also while the job still waits."""
    reader = waiting(world, kind, host_id="hv2", recovery_point=world.middle)
    job = world.prune(world.middle, world.top)
    assert (why_stayed(job), removed_by(job)) == ({world.middle: "point_in_use"}, [world.top])
    assert job.result is not None
    assert job.result["prune"]["stayed"][0]["reason"]["facts"]["jobs"] == [reader]


def test_a_point_below_the_disk_of_a_domain_stays(world: World) -> None:
    """An instant restore was cancelled behind its guest, which reads from the repository."""
    below = [str(world.sealed.folder(each) / "vda.qcow2") for each in (world.middle, world.full)]
    document = {"disks": [{"target": "vda", "chain": below}]}
    with world.database.write() as session:
        session.add(Host(id="hv2", started_at=BEGIN, last_seen=BEGIN, version="", libvirt_uri="", versions={}, libvirt_connected=True))
        session.flush()
        session.add(Domain(host_id="hv2", id="d2", name="restored", state="running", published_at=BEGIN, document=document))
    job = world.prune(world.middle, with_needing=True)
    assert (why_stayed(job), removed_by(job)) == ({world.middle: "point_in_use"}, [world.top])
    assert job.result is not None
    assert job.result["prune"]["stayed"][0]["reason"]["facts"]["domains"] == ["restored"]


def test_a_domain_whose_backup_runs_keeps_its_points(world: World) -> None:
    """The backup may build on any of them."""
    backup = waiting(world, "backup", domain_id=DOMAIN)
    with world.database.write() as session:
        queue.ensure_slots(session, f"host:{HOST}:transfer", 1)
        claim = queue.claim(session, HOST, f"{HOST}:2", 60)
    assert claim is not None
    assert claim.job_id == backup
    assert why_stayed(world.prune(world.top)) == {world.top: "point_in_use"}


def test_a_backup_that_waits_for_its_next_attempt_keeps_what_it_builds_on(world: World) -> None:
    """Its worker died while it copied an increment: the point is taken, and its parent is decided."""
    backup = waiting(world, "backup", domain_id=DOMAIN)
    with world.database.write() as session:
        documents.change_jobs(session, update(table_of(Job)).where(Job.id == backup).values(intent={"own": {"stage": "transfer"}}))
    assert why_stayed(world.prune(world.top)) == {world.top: "point_in_use"}


def test_a_cancelled_instant_restore_keeps_its_point_until_its_host_has_published_its_domains(world: World) -> None:
    result = {"restore": {"reads_repository": ["vda"]}}
    with world.database.write() as session:
        session.add(Host(id="hv2", started_at=BEGIN, last_seen=BEGIN, version="", libvirt_uri="", versions={}, libvirt_connected=True))
    ended = waiting(world, "restore", host_id="hv2", recovery_point=world.top)
    with world.database.write() as session:
        queue.request_cancel(session, ended)
        documents.change_jobs(session, update(table_of(Job)).where(Job.id == ended).values(result=result))
    assert why_stayed(world.prune(world.top)) == {world.top: "point_in_use"}
    with world.database.write() as session:
        session.execute(update(Host).values(inventory_at=database_now(session)))
    assert world.prune(world.top).state == "succeeded"


def test_a_backup_that_waits_is_not_in_the_way(world: World) -> None:
    """It decides when it begins."""
    waiting(world, "backup", domain_id=DOMAIN)
    assert world.prune(world.top).state == "succeeded"


def test_a_point_that_only_the_repository_knows_to_be_needed_stays(world: World) -> None:
    """Another service has made an increment on it, and this database does not know."""
    other = world.sealed.folder(world.top).with_name("20991231T000000Z-ffffffff")
    shutil.copytree(world.sealed.folder(world.top), other)
    world.prune(world.top)
    job = world.prune(world.middle)
    assert error_of(job)["facts"]["needed_by"] == [f"domains/{DOMAIN}/{other.name}"]
    assert world.still_verifies(world.middle)
    assert world.sealed.row(world.database, world.middle).state == "sealed", "it can be restored as before"


def test_a_damaged_point_that_another_service_needs_stays_damaged(world: World) -> None:
    other = world.sealed.folder(world.top).with_name("20991231T000000Z-ffffffff")
    shutil.copytree(world.sealed.folder(world.top), other)
    world.prune(world.top)
    world.sealed.damage(world.middle)
    world.verify(world.middle)
    assert error_of(world.prune(world.middle))["code"] == "point_needed"
    assert world.sealed.row(world.database, world.middle).state == "damaged"


def test_a_point_on_which_an_unfinished_point_stands_stays(world: World) -> None:
    other = world.sealed.folder(world.top).with_name(".partial-20991231T000000Z-ffffffff")
    shutil.copytree(world.sealed.folder(world.top), other)
    world.prune(world.top)
    assert error_of(world.prune(world.middle))["code"] == "point_needed"


def test_nothing_goes_in_a_repository_that_is_gone(world: World) -> None:
    world.sealed.path.rename(world.sealed.path.with_name("elsewhere"))
    assert error_of(world.prune(world.top))["code"] == "repository_gone"
    assert world.on_record() == {world.full, world.middle, world.top}
    world.sealed.path.with_name("elsewhere").rename(world.sealed.path)
    assert world.still_verifies(world.top)


def test_a_point_that_is_not_known_is_told(world: World) -> None:
    job = world.prune("11111111-2222-4333-8444-555555555555")
    assert error_of(job)["code"] == RecoveryPointNotFound.code


# --- killed between the steps -----------------------------------------------------------------------


class _DiesBefore(Repository):
    """The worker dies before the hand is asked to remove anything."""

    def remove_point(self, folder: str, **_: Any) -> int:
        raise SystemExit(folder)


class _DiesAfter(Repository):
    """The worker dies when the files are gone, and the database does not know that yet."""

    def remove_point(self, folder: str, **_: Any) -> int:
        super().remove_point(folder)
        raise SystemExit(folder)


class _DiesInTheMiddle(Repository):
    """The worker and the hand die when the folder has its other name, and some of its files are gone."""

    def remove_point(self, folder: str, **_: Any) -> int:
        place = Path(self.path, folder)
        aside = place.rename(place.with_name(f"{REMOVED_PREFIX}{place.name}"))
        (aside / "manifest.json").unlink()
        raise SystemExit(folder)


@pytest.mark.parametrize("dies", [_DiesBefore, _DiesInTheMiddle, _DiesAfter])
def test_a_worker_that_dies_leaves_a_point_that_nothing_uses_and_its_next_attempt_finishes(world: World, dies: type[Repository]) -> None:
    world.ask_prune(world.top)
    run: JobRun = world.scene.claim()
    with pytest.raises(SystemExit):
        Prune(open_repository=dies).run(run, world.scene.ours)
    assert world.sealed.row(world.database, world.top).state == PointState.leaving
    run.finish(Prune().run(run, world.scene.ours))
    assert world.scene.job(run.claim.job_id).state == "succeeded"
    assert world.are_there(world.full, world.middle)
    assert world.still_verifies(world.middle)


def test_what_a_failed_prune_has_given_up_is_removed_by_the_next_one(world: World) -> None:
    with world.database.write() as session:
        removal.give_up(session, world.top, now=removal.turn_of(session, world.sealed.id), facts={})
    assert removed_by(world.prune(world.middle)) == [world.top, world.middle]
    assert world.are_there(world.full)


def test_an_attempt_tells_what_the_attempts_before_it_have_removed(world: World) -> None:
    world.ask_prune(world.top, world.middle)
    run = world.scene.claim()
    kept = world.sealed.folder(world.middle).name

    class DiesAtTheSecond(Repository):
        def remove_point(self, folder: str, **_: Any) -> int:
            if folder.endswith(kept):
                raise SystemExit(folder)
            return super().remove_point(folder)

    with pytest.raises(SystemExit):
        Prune(open_repository=DiesAtTheSecond).run(run, world.scene.ours)
    run.finish(Prune().run(run, world.scene.ours))
    job = world.scene.job(run.claim.job_id)
    assert (job.state, removed_by(job)) == ("succeeded", [world.top, world.middle])


def test_a_removal_that_was_begun_is_not_cancelled(world: World) -> None:
    """The wish comes while the hand removes files."""
    job_id = world.ask_prune(world.top)
    run = world.scene.claim()

    class IsCancelledInIt(Repository):
        def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
            if step == "remove_point":
                run.cancel_requested.set()
            return super().call(step, arguments, **options)

    world.scene.handlers[JobKind.prune.value] = Prune(open_repository=IsCancelledInIt)  # type: ignore[index]
    world.scene.execution.execute(run)
    assert world.scene.job(job_id).state == "succeeded"
    assert world.are_there(world.full, world.middle)


def test_a_prune_that_is_cancelled_keeps_what_it_has_not_begun(world: World) -> None:
    job_id = world.ask_prune(world.top, world.middle)
    run = world.scene.claim()

    class IsCancelled(Repository):
        def remove_point(self, folder: str, **_: Any) -> int:
            freed = super().remove_point(folder)
            run.cancel_requested.set()
            return freed

    world.scene.handlers[JobKind.prune.value] = Prune(open_repository=IsCancelled)  # type: ignore[index]
    world.scene.execution.execute(run)
    assert world.scene.job(job_id).state == "cancelled"
    assert world.are_there(world.full, world.middle)
    assert world.still_verifies(world.middle)


def waiting(world: World, kind: str, *, domain_id: str | None = None, host_id: str = HOST, **request: Any) -> str:
    domain = domain_id or (DOMAIN if kind == "restore" else None)
    asked = {"kind": kind, "domain": "db1", "repository": world.sealed.id, "mode": "files", **request}
    point_id = request.get("recovery_point")
    new = NewJob(kind, domain, "db1" if domain else None, host_id, asked, {}, point_id=point_id, repository_id=world.sealed.id)
    with world.database.write() as session:
        return queue.enqueue(session, new).job_id
