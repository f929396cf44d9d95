"""The job kind merge: a point takes over what it needs, its guest sees the same, and whatever dies, every good point verifies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.db.engine import Database, database_now
from service.db.tables import Job, RecoveryPoint
from service.db.tables import Repository as Row
from service.errors import RepositoryNotAnswering, RepositoryRefused
from service.jobs.merge import Merge
from service.jobs.run import JobRun, MustRecover
from service.model.kinds import JobKind
from service.model.lifecycle import JobState
from service.records import merging, points, queue
from service.records.queue import NewJob
from service.repository import signing
from service.repository.catalog import catalog_of
from service.repository.store import Repository
from service.worker import repository_import
from tests.scenes.host import HOST, error_of, phases_of
from tests.scenes.sealed import DOMAIN, Sealed
from tests.scenes.verified import Verifying

MIB = 1 << 20


class World(Verifying):
    """A host with a repository of one full point and three increments: `full`, `low`, `high`, `top`."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        super().__init__(database, folder, made.copied(folder / "repository", guest=folder))
        self.sealed.register(database)
        self.sealed.list_all(database)
        self.full, self.low, self.high, self.top = self.sealed.points

    def ask_merge(self, *point_ids: str, **request: Any) -> str:
        asked = {"kind": "merge", "repository": self.sealed.id, "recovery_points": list(point_ids), **request}
        new = NewJob(JobKind.merge.value, None, None, HOST, asked, {}, max_attempts=10, repository_id=self.sealed.id)
        with self.database.write() as session:
            return queue.enqueue(session, new).job_id

    def merge(self, *point_ids: str, **request: Any) -> Job:
        job_id = self.ask_merge(*point_ids, **request)
        self.scene.execution.execute(self.scene.claim())
        return self.scene.job(job_id)

    def handler(self, opened: Callable[..., Repository] = Repository, **options: Any) -> Merge:
        return Merge(self.scene.settings.state_dir, open_repository=opened, **options)

    def on_record(self) -> dict[str, RecoveryPoint]:
        with self.database.read() as session:
            return {point.id: point for point in session.scalars(select(RecoveryPoint))}

    def parents(self, point_id: str) -> list[str]:
        return list(self.on_record()[point_id].parents or ())

    def folders(self) -> set[str]:
        """The names of all folders of this domain, unfinished and removed ones too."""
        return {folder.name for folder in self.sealed.folder(self.full).parent.iterdir()}

    def only(self, *point_ids: str) -> bool:
        return self.folders() == {self.sealed.folder(each).name for each in point_ids} and set(self.on_record()) == set(point_ids)

    def are_all_good(self) -> bool:
        """Every point on record has the manifest on record, every stored byte is as it was sealed, and the guest sees what it saw."""
        with self.sealed.opened() as repository:
            return all(self._is_good(repository, point) for point in self.on_record().values())

    def _is_good(self, repository: Repository, point: RecoveryPoint) -> bool:
        manifest = repository.point(str(point.folder))
        seen = repository.call("verify_point", {"folder": point.folder, "checks": ["bytes", "structure"]})
        return (
            signing.digest(signing.canonical(manifest)) == point.manifest_digest
            and list(manifest.parents) == point.parents
            and manifest.disks[0].content == self.sealed.manifests[point.id].disks[0].content
            and seen["bytes"]["ok"]
            and seen["structure"]["ok"]
            and point.state == "sealed"
        )


def make(folder: Path, **options: Any) -> Sealed:
    return Sealed.chain(folder / "made", (1, 0, 2 * MIB), (2, MIB, MIB), (3, 2 * MIB, MIB), (0, 0, MIB), **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, made)


def taken_by(job: Job) -> dict[str, list[str]]:
    assert job.result is not None
    return {point["id"]: point["points"] for point in job.result["merge"]["merged"]}


# --- what moves -------------------------------------------------------------------------------------


def test_the_point_above_a_full_one_becomes_full_itself(world: World) -> None:
    job = world.merge(world.full)
    assert (job.state, taken_by(job)) == ("succeeded", {world.low: [world.full]})
    assert [name for name, _ in phases_of(job)] == ["plan", "transfer", "seal", "merge"]
    row = world.on_record()[world.low]
    assert (row.parents, row.disks[0]["level"], row.disks[0]["parent"]) == ([], "full", None)
    assert world.only(world.full, world.low, world.high, world.top)
    assert world.are_all_good()


def test_the_point_above_an_increment_stands_on_what_the_increment_stood_on(world: World) -> None:
    assert world.merge(world.low).state == "succeeded"
    row = world.on_record()[world.high]
    assert (row.parents, row.disks[0]["level"]) == ([world.full], "content")
    assert world.parents(world.top) == [world.high]
    assert world.are_all_good()


def test_points_that_lie_upon_each_other_move_together(world: World) -> None:
    job = world.merge(world.full, world.low)
    assert taken_by(job) == {world.high: [world.low, world.full]}
    assert (world.parents(world.high), world.parents(world.low)) == ([], [world.full])
    assert world.are_all_good()


def test_points_that_lie_apart_move_each_into_its_own(world: World) -> None:
    assert taken_by(world.merge(world.full, world.high)) == {world.low: [world.full], world.top: [world.high]}
    assert world.are_all_good()


def test_each_of_several_points_above_takes_what_it_needs(world: World) -> None:
    """A second chain stands on the full point: the domain was put back to it."""
    world.sealed.points = [world.full]
    other = world.sealed.seal((9, 3 * MIB, MIB), database=world.database)
    assert taken_by(world.merge(world.full)) == {world.low: [world.full], other: [world.full]}
    assert world.are_all_good()


def test_a_point_that_nothing_needs_is_merged_into_nothing(world: World) -> None:
    job = world.merge(world.top)
    assert (job.state, taken_by(job)) == ("succeeded", {})


def test_what_was_merged_can_be_removed_then_or_at_once(world: World) -> None:
    job = world.merge(world.full, world.low, remove=True)
    assert job.result is not None
    assert [point["id"] for point in job.result["prune"]["removed"]] == [world.low, world.full]
    assert world.only(world.high, world.top)
    assert world.are_all_good()


def test_a_compressed_point_stays_compressed(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path, make(tmp_path, compress=True))
    assert world.merge(world.full, remove=True).state == "succeeded"
    assert world.on_record()[world.low].disks[0]["is_compressed"] is True
    assert (world.sealed.folder(world.low) / "vda.qcow2").stat().st_size < MIB, "it holds 2 MiB of equal bytes"
    assert world.are_all_good()


def test_an_encrypted_point_stays_encrypted(sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("correct horse")
    (tmp_path / "key").chmod(0o600)
    world = World(sqlite_database, tmp_path, make(tmp_path, key=tmp_path / "key"))
    assert world.merge(world.full, remove=True).state == "succeeded"
    assert world.on_record()[world.low].is_encrypted is True
    assert bytes([1]) * 4096 not in (world.sealed.folder(world.low) / "vda.qcow2").read_bytes()
    assert world.are_all_good()


def test_a_disk_that_has_grown_since_keeps_its_size(world: World) -> None:
    world.sealed.disk.grow(6 * MIB)
    world.sealed.seal((5, 5 * MIB, MIB), database=world.database)
    assert world.merge(world.full, world.low, world.high, world.top, remove=True).state == "succeeded"
    assert world.are_all_good()


# --- what is on record ------------------------------------------------------------------------------


def test_the_manifest_tells_the_merge_and_is_signed_again(world: World) -> None:
    before = world.on_record()[world.low].manifest_digest
    job = world.merge(world.full)
    with world.sealed.opened() as repository:
        (stored,) = [point for point in repository.points() if point.folder == world.sealed.manifests[world.low].folder]
    assert stored.manifest is not None
    merge = stored.manifest.merges[-1]
    assert (merge["points"], merge["job_id"], merge["replaces"]) == ([world.full], job.id, before)
    assert (stored.is_signed, stored.digest) == (True, world.on_record()[world.low].manifest_digest)
    assert world.on_record()[world.low].next_manifest_digest is None


def test_a_proof_of_what_was_read_stays_with_its_date(world: World) -> None:
    """The new files were read back, so an instant restore need not read them again."""
    world.verify(world.top, checks=["bytes"])
    before = (world.sealed.row(world.database, world.top).proofs or [])[-1]
    world.merge(world.full)
    after = (world.sealed.row(world.database, world.top).proofs or [])[-1]
    assert after["at"] == before["at"]
    changed = {folder for folder, stamp in after["facts"]["stamps"].items() if before["facts"]["stamps"][folder] != stamp}
    assert changed == {world.sealed.manifests[world.low].folder}
    with world.sealed.opened() as repository:
        seen = repository.call("verify_point", {"folder": world.sealed.manifests[world.top].folder, "checks": ["bytes"]})["bytes"]["stamps"]
    assert seen.items() <= after["facts"]["stamps"].items()


def test_an_import_knows_what_was_merged(world: World) -> None:
    world.merge(world.full)
    result = imported(world)
    assert (result.refused, result.counts["known"]) == ([], 4)


# --- what stays -------------------------------------------------------------------------------------


def test_nothing_is_merged_from_a_point_whose_bytes_are_not_what_was_sealed(world: World) -> None:
    """The damage would be sealed as if it were right."""
    world.sealed.damage(world.full)
    job = world.merge(world.full, remove=True)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert world.only(world.full, world.low, world.high, world.top)
    assert world.parents(world.low) == [world.full]
    assert world.on_record()[world.low].state == "damaged"


def test_a_small_file_that_was_changed_is_not_sealed_again(world: World) -> None:
    world.sealed.damage(world.low, "domain.xml")
    job = world.merge(world.full)
    assert error_of(job)["facts"]["path"].endswith("domain.xml")
    assert world.only(world.full, world.low, world.high, world.top)


def test_a_damaged_point_takes_nothing_over(world: World) -> None:
    world.sealed.damage(world.high)
    world.verify(world.high)
    assert error_of(world.merge(world.low))["code"] == "point_damaged"


def test_a_pinned_point_is_merged_and_not_removed(world: World) -> None:
    with world.database.write() as session:
        points.set_pinned(session, world.full, pinned=True)
    assert error_of(world.merge(world.full, remove=True))["code"] == "point_pinned"
    assert world.parents(world.low) == [world.full]
    assert world.merge(world.full).state == "succeeded"


def test_a_repository_without_space_is_told_before_anything_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.database.write() as session:
        session.get_one(Row, world.sealed.id).reserve_bytes = 1 << 60
    asked: list[str] = []
    real = Repository.call

    def call(repository: Repository, step: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        asked.append(step)
        return real(repository, step, *arguments, **options)

    monkeypatch.setattr(Repository, "call", call)
    assert error_of(world.merge(world.full))["code"] == "repository_full"
    assert "begin_merge" not in asked


@pytest.mark.parametrize("kind", ["verify", "restore"])
def test_files_that_a_job_reads_are_not_replaced(world: World, kind: str) -> None:
    """Not those below the point that it reads, either. The merge waits, and gives up in the end."""
    reader = begun(world, kind, recovery_point=world.top)
    world.scene.handlers[JobKind.merge.value] = world.handler(patience_s=0)  # type: ignore[index]
    job = world.merge(world.full)
    assert (error_of(job)["code"], error_of(job)["facts"]["jobs"]) == ("point_in_use", [reader])
    assert world.only(world.full, world.low, world.high, world.top)
    assert world.parents(world.low) == [world.full]


def test_a_job_that_waits_is_not_in_the_way(world: World) -> None:
    """It looks at the files when it begins."""
    waiting(world, "verify", recovery_point=world.top)
    assert world.merge(world.full).state == "succeeded"


def test_a_merge_waits_for_a_job_that_reads(world: World) -> None:
    reader = begun(world, "verify", recovery_point=world.top)
    job_id = world.ask_merge(world.full)
    run = world.scene.claim()
    waits: list[str] = []

    def reader_ends(*_: Any) -> None:
        waits.append(reader)
        with world.database.write() as session:
            queue.finish(session, reader, str(session.get_one(Job, reader).lease_token), JobState.succeeded, {})

    run.waits = reader_ends  # type: ignore[method-assign, assignment]
    run.finish(world.handler().run(run, world.scene.ours))
    assert (world.scene.job(job_id).state, waits) == ("succeeded", [reader])


def test_a_job_that_begins_in_the_moment_waits_until_it_is_over(world: World) -> None:
    world.ask_merge(world.full)
    run = world.scene.claim()
    with pytest.raises(SystemExit):
        world.handler(dying("put_in_place", when="before")).run(run, world.scene.ours)
    with world.database.write() as session:
        for read in ([world.top], [world.low], None):
            assert merging.being_replaced(session, world.sealed.id, DOMAIN, read) == [world.low]
        assert merging.being_replaced(session, world.sealed.id, DOMAIN, [world.full]) == []
    run.finish(world.handler().run(run, world.scene.ours))
    with world.database.write() as session:
        assert merging.being_replaced(session, world.sealed.id, DOMAIN) == []


def test_a_merge_that_is_cancelled_leaves_nothing(world: World) -> None:
    job_id = world.ask_merge(world.full)
    run = world.scene.claim()

    class IsCancelled(Repository):
        def seal(self, *arguments: Any, **options: Any) -> Any:
            run.cancel_requested.set()
            return super().seal(*arguments, **options)

    world.scene.handlers[JobKind.merge.value] = world.handler(IsCancelled)  # type: ignore[index]
    world.scene.execution.execute(run)
    assert world.scene.job(job_id).state == "cancelled"
    assert world.only(world.full, world.low, world.high, world.top)
    assert world.are_all_good()


# --- whatever dies ----------------------------------------------------------------------------------

STEPS = ("measure_merge", "begin_merge", "merge_disk", "take_over", "seal", "put_key", "put_in_place", "remove_point")


def dying(at: str, *, when: str) -> type[Repository]:
    """The worker dies at the first call of the step, before it is done or after that."""

    class Dies(Repository):
        def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
            if step == at and when == "before":
                raise SystemExit(step)
            answer = super().call(step, arguments, **options)
            if step == at:
                raise SystemExit(step)
            return answer

    return Dies


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_dies_leaves_good_points_and_the_next_attempt_finishes(world: World, step: str, when: str) -> None:
    world.ask_merge(world.full, world.high, remove=True)
    run: JobRun = world.scene.claim()
    with pytest.raises(SystemExit):
        world.handler(dying(step, when=when)).run(run, world.scene.ours)
    run.finish(world.handler().run(run, world.scene.ours))
    job = world.scene.job(run.claim.job_id)
    assert job.state == "succeeded"
    assert taken_by(job) == {world.low: [world.full], world.top: [world.high]}
    assert world.only(world.low, world.top)
    assert world.are_all_good()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [step for step in STEPS if step != "remove_point"])
def test_a_worker_that_dies_for_good_leaves_good_points(world: World, step: str, when: str) -> None:
    """No attempt is left. What is in the repository is found by whoever reads next."""
    world.ask_merge(world.full)
    run: JobRun = world.scene.claim()
    with pytest.raises(SystemExit):
        world.handler(dying(step, when=when)).run(run, world.scene.ours)
    with world.database.write() as session:
        queue.finish(session, run.claim.job_id, run.claim.lease_token, JobState.failed, {})
    assert world.verify(world.low, checks=["bytes"]).state == "succeeded"
    assert world.are_all_good()
    assert imported(world).refused == []
    assert world.merge(world.full, remove=True).state == "succeeded"
    assert world.only(world.low, world.high, world.top)
    assert world.are_all_good()


def test_a_repository_that_hangs_while_files_take_their_place_leaves_the_rest_to_the_next_attempt(world: World) -> None:
    world.ask_merge(world.full)
    run = world.scene.claim()

    class Hangs(Repository):
        def put_in_place(self, *arguments: Any, **options: Any) -> str:
            super().put_in_place(*arguments, **options)
            raise RepositoryNotAnswering(path=self.path, step="put_in_place", silent_s=60.0)

    with pytest.raises(MustRecover):
        world.handler(Hangs).run(run, world.scene.ours)
    run.finish(world.handler().run(run, world.scene.ours))
    assert world.parents(world.low) == []
    assert world.are_all_good()


def test_a_step_that_is_refused_leaves_the_old_files(world: World) -> None:
    job_id = world.ask_merge(world.full)

    class Refuses(Repository):
        def put_in_place(self, *_: Any, **__: Any) -> str:
            raise RepositoryRefused(path=self.path, what="replacing", reason="a test")

    world.scene.handlers[JobKind.merge.value] = world.handler(Refuses)  # type: ignore[index]
    world.scene.execution.execute(world.scene.claim())
    assert error_of(world.scene.job(job_id))["code"] == "repository_refused"
    assert world.on_record()[world.low].next_manifest_digest is None
    assert world.only(world.full, world.low, world.high, world.top)
    assert world.are_all_good()


# --- parts ------------------------------------------------------------------------------------------


def waiting(world: World, kind: str, **request: Any) -> str:
    asked = {"kind": kind, **request} | ({"mode": "files", "folder": "/srv/out"} if kind == "restore" else {})
    new = NewJob(kind, "d9", "db9", "hv2", asked, {}, point_id=request["recovery_point"], repository_id=world.sealed.id)
    with world.database.write() as session:
        return queue.enqueue(session, new).job_id


def begun(world: World, kind: str, **request: Any) -> str:
    """A job of another host that runs."""
    job_id = waiting(world, kind, **request)
    with world.database.write() as session:
        for lane in ("transfer", "maintenance"):
            queue.ensure_slots(session, f"host:hv2:{lane}", 1)
        claim = queue.claim(session, "hv2", "hv2:1", 60)
    assert claim is not None
    assert claim.job_id == job_id
    return job_id


def imported(world: World) -> repository_import.ImportResult:
    result = repository_import.ImportResult()
    with world.sealed.opened() as repository:
        stored = repository_import.listed_twice(repository)
    with world.database.write() as session:
        catalog = catalog_of(stored)
        repository_import.put_on_record(session, world.sealed.id, catalog.points, result, database_now(session))
        repository_import.refuse(session, world.sealed.id, catalog.unusable, result, database_now(session))
    return result
