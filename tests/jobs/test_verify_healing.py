"""A verify that heals: bad files are made again from good copies, byte for byte, and what cannot be made again stays damaged."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import RepositoryNotAnswering, RepositoryReadOnly
from service.jobs.verify import Verify
from service.model.verification_budget import Budget
from service.records import verification
from service.repository.signing import SigningKey
from service.repository.store import Repository
from service.scheduler.verification import IDLE_S, VerificationLooks
from tests.api.world import add_domain, add_host
from tests.repository.damages import becomes_a_folder, becomes_a_link, flips_a_bit, is_cut
from tests.repository.disks import Disk
from tests.scenes.host import HOST, error_of, phases_of
from tests.scenes.sealed import BEGIN, DOMAIN, Sealed
from tests.scenes.verified import Verifying

MIB = 1 << 20


class World(Verifying):
    """A host with a repository of two chains of one disk: `first`, `inc` on it, and `second`, which is full and has what `first` has."""

    def __init__(self, database: Database, folder: Path, sealed: Sealed, **options: Any) -> None:
        super().__init__(database, folder, sealed, **{"state_dir": sealed.disk.path.parent / "state"} | options)
        sealed.register(database)
        sealed.list_all(database)
        self.first, self.inc = sealed.points[:2]
        self.before = sealed.contents()

    @property
    def second(self) -> str:
        return self.sealed.points[2]

    def take_another_full(self) -> None:
        self.sealed.seal(database=self.database, is_full=True)

    def heal(self, point_id: str) -> Job:
        return self.verify(point_id, heal=True)

    def state(self, point_id: str) -> str:
        return self.sealed.row(self.database, point_id).state

    def proofs(self, point_id: str) -> list[dict[str, Any]]:
        return [dict(proof) for proof in self.sealed.row(self.database, point_id).proofs or ()]

    def is_as_sealed(self) -> bool:
        return self.sealed.contents() == self.before


def make(folder: Path, *, fulls: int, **options: Any) -> Sealed:
    sealed = Sealed(folder / "repository", **options)
    sealed.signing_key = SigningKey.of_service(folder / "state")
    sealed.seal((1, 0, MIB), (2, MIB, MIB))
    sealed.seal((3, 2 * MIB, MIB))
    for _ in range(1, fulls):
        sealed.seal(is_full=True)
    return sealed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Sealed]:
    """With one full point, and with two."""
    return {fulls: make(tmp_path_factory.mktemp(f"fulls{fulls}"), fulls=fulls) for fulls in (1, 2)}


@pytest.fixture
def world(made: dict[int, Sealed], sqlite_database: Database, tmp_path: Path) -> World:
    """The bad block may be found in the second chain."""
    return World(sqlite_database, tmp_path, made[2].copied(tmp_path / "repository"))


@pytest.fixture
def lonely(made: dict[int, Sealed], sqlite_database: Database, tmp_path: Path) -> World:
    """There is one chain."""
    return World(sqlite_database, tmp_path, made[1].copied(tmp_path / "repository"))


def image(world: World, point_id: str) -> Path:
    return world.sealed.folder(point_id) / "vda.qcow2"


def data_at(file: Path) -> int:
    """A byte of the guest's in a small image: the last clusters are data."""
    return file.stat().st_size - 100


def test_a_bad_block_is_taken_from_another_chain_that_has_it(world: World) -> None:
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    job = world.heal(world.inc)
    assert (job.state, world.state(world.inc), world.state(world.first)) == ("succeeded", "sealed", "sealed")
    assert world.is_as_sealed()
    assert [phase for phase, _ in phases_of(job)][:3] == ["checksums", "heal", "checksums"]
    assert job.result is not None
    (healed,) = job.result["verify"]["healing"]
    assert (healed["healed"], healed["reason"]) == (True, None)
    assert [(source["source"], source["recovery_point"], source["blocks"]) for source in healed["sources"]] == [("point", world.second, 1)]


def test_both_facts_are_on_record_at_each_point_that_they_are_about(world: World) -> None:
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    world.heal(world.inc)
    for point_id in (world.inc, world.first):
        bad, good = (proof for proof in world.proofs(point_id) if proof["kind"] == "bytes")
        assert (bad["ok"], good["ok"]) == (False, True)
        assert [fault["file"] for fault in bad["facts"]["faults"]] == ["vda.qcow2"]
        assert [each["file"] for each in good["facts"]["healed"]] == [f"{world.sealed.manifests[world.first].folder}/vda.qcow2"]


def test_a_block_that_nobody_else_has_stays_damaged(lonely: World) -> None:
    flips_a_bit(image(lonely, lonely.first), data_at(image(lonely, lonely.first)))
    changed = lonely.sealed.contents()
    job = lonely.heal(lonely.inc)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert (lonely.state(lonely.inc), lonely.state(lonely.first)) == ("damaged", "damaged")
    assert lonely.sealed.contents() == changed, "what cannot be made again is left alone"
    assert job.result is not None
    assert [healed["healed"] for healed in job.result["verify"]["healing"]] == [False]
    assert ("heal", "warning") in phases_of(job)


def test_what_was_damaged_is_healed_after_the_next_full_backup(lonely: World) -> None:
    """Which reads all blocks of the live disk, and the guest has not written the bad one since."""
    flips_a_bit(image(lonely, lonely.first), data_at(image(lonely, lonely.first)))
    assert lonely.heal(lonely.inc).state == "failed"
    flipped = image(lonely, lonely.first).read_bytes()
    lonely.take_another_full()
    assert lonely.heal(lonely.inc).state == "succeeded"
    assert image(lonely, lonely.first).read_bytes() != flipped
    assert image(lonely, lonely.first).read_bytes() == lonely.before[str(image(lonely, lonely.first).relative_to(lonely.sealed.path))]


@pytest.mark.parametrize("offset", [0, 9, 24, 40, 100, 65536, 65536 + 7, 2 * 65536 + 1, 3 * 65536, 3 * 65536 + 3, 4 * 65536, 4 * 65536 + 6])
def test_the_tables_of_an_image_are_made_again_from_nothing_else(lonely: World, offset: int) -> None:
    """Header, table of refcounts, refcounts, L1 table, L2 table."""
    for point_id in (lonely.first, lonely.inc):
        flips_a_bit(image(lonely, point_id), offset)
    assert lonely.heal(lonely.inc).state == "succeeded"
    assert lonely.is_as_sealed()


def test_tables_that_are_overwritten_as_a_whole_are_made_again_where_they_say_nothing_new(lonely: World) -> None:
    """A page of the header's cluster, of the refcounts, and of the L1 table."""
    with image(lonely, lonely.first).open("r+b") as file:
        for cluster in range(3):
            file.seek(cluster * 65536)
            file.write(os.urandom(4096))
    assert lonely.heal(lonely.inc).state == "succeeded"
    assert lonely.is_as_sealed()


@pytest.mark.parametrize("file", ["vda.blocks", "domain.xml", "manifest.json", "manifest.sig", "vda.qcow2"])
@pytest.mark.parametrize("at", [0, 1])
def test_every_file_of_a_point_is_made_again(world: World, file: str, at: int) -> None:
    damaged = world.sealed.folder((world.first, world.inc)[at]) / file
    flips_a_bit(damaged, damaged.stat().st_size // 2)
    job = world.heal(world.inc)
    assert (job.state, job.error) == ("succeeded", None)
    assert world.is_as_sealed()


def test_several_files_of_several_points_are_made_again(world: World) -> None:
    for point_id in (world.first, world.inc):
        for file in ("vda.blocks", "domain.xml", "manifest.json", "manifest.sig"):
            flips_a_bit(world.sealed.folder(point_id) / file, 20)
    assert world.heal(world.inc).state == "succeeded"
    assert world.is_as_sealed()


@pytest.mark.parametrize("happens", [is_cut, becomes_a_link, becomes_a_folder, Path.unlink])
@pytest.mark.parametrize("file", ["domain.xml", "vda.blocks"])
def test_a_file_that_is_not_one_any_more_is_made_again(world: World, happens: Any, file: str) -> None:
    happens(world.sealed.folder(world.first) / file)
    assert world.heal(world.inc).state == "succeeded"
    assert world.is_as_sealed()


def test_an_image_that_was_cut_is_made_again(world: World) -> None:
    os.truncate(image(world, world.first), image(world, world.first).stat().st_size - 70_000)
    assert world.heal(world.inc).state == "succeeded"
    assert world.is_as_sealed()


def test_an_image_and_its_digests_are_not_made_again_from_each_other(world: World) -> None:
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    with (world.sealed.folder(world.first) / "vda.blocks").open("r+b") as file:
        file.write(os.urandom(64))
    job = world.heal(world.first)
    assert (job.state, world.state(world.first)) == ("failed", "damaged")


def test_the_folder_of_a_point_that_is_gone_is_not_made_up(world: World) -> None:
    shutil.rmtree(world.sealed.folder(world.first))
    job = world.heal(world.inc)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_incomplete")
    assert not world.sealed.folder(world.first).exists()


def test_a_signature_of_another_service_is_not_made_up(world: World) -> None:
    world.use(Verify(state_dir=world.sealed.path.parent / "another state"))
    flips_a_bit(world.sealed.folder(world.inc) / "manifest.sig", 30)
    job = world.heal(world.inc)
    assert (job.state, world.state(world.inc)) == ("failed", "damaged")


def test_nothing_is_healed_that_was_not_asked_for(world: World) -> None:
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    changed = world.sealed.contents()
    assert world.verify(world.inc).state == "failed"
    assert world.sealed.contents() == changed


def test_nothing_is_left_beside_the_points(world: World) -> None:
    for file in ("vda.qcow2", "vda.blocks"):
        flips_a_bit(world.sealed.folder(world.first) / file, 30)
    world.heal(world.inc)
    names = {entry.name for entry in (world.sealed.path / "domains" / DOMAIN).iterdir()}
    assert names == {world.sealed.folder(point_id).name for point_id in world.sealed.points}


def test_a_good_point_is_read_once(world: World) -> None:
    job = world.heal(world.inc)
    assert (job.state, [phase for phase, _ in phases_of(job)]) == ("succeeded", ["checksums", "structure", "filesystem"])
    assert job.result is not None
    assert job.result["verify"]["healing"] == []


def test_the_damage_of_encrypted_blocks_is_healed_with_the_key(sqlite_database: Database, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a good passphrase")
    world = World(sqlite_database, tmp_path, make(tmp_path, fulls=2, key=key))
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    assert world.heal(world.inc).state == "succeeded"
    assert world.is_as_sealed()


@pytest.mark.parametrize("from_the_end", [10, 300])
def test_compressed_blocks_are_compressed_again_to_the_same_bytes(sqlite_database: Database, tmp_path: Path, from_the_end: int) -> None:
    world = World(sqlite_database, tmp_path, make(tmp_path, fulls=2, compress=True))
    for point_id in (world.first, world.inc):
        flips_a_bit(image(world, point_id), image(world, point_id).stat().st_size - from_the_end)
    job = world.heal(world.inc)
    assert (job.state, job.result and job.result["verify"]["healing"][0]["reason"]) == ("succeeded", None)
    assert world.is_as_sealed()


def test_a_compressed_block_that_nobody_else_has_stays_damaged(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path, make(tmp_path, fulls=1, compress=True))
    flips_a_bit(image(world, world.first), image(world, world.first).stat().st_size - 300)
    assert (world.heal(world.inc).state, world.state(world.inc)) == ("failed", "damaged")


# --- killed between the steps -----------------------------------------------------------------------


class _DiesBefore(Repository):
    """The worker dies before the hand is asked to heal anything."""

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        if step == "heal_file":
            raise SystemExit(step)
        return super().call(step, arguments, **options)


class _DiesAfter(Repository):
    """The worker dies when a file is healed, and the database does not know that yet."""

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        answer = super().call(step, arguments, **options)
        if step == "heal_file":
            raise SystemExit(step)
        return answer


@pytest.mark.parametrize("dies", [_DiesBefore, _DiesAfter])
def test_a_worker_that_dies_loses_neither_the_healing_nor_where_the_bytes_are_from(world: World, dies: type[Repository]) -> None:
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    world.ask(world.inc, heal=True)
    run = world.scene.claim()
    with pytest.raises(SystemExit):
        Verify(open_repository=dies).run(run, world.scene.ours)
    assert (world.state(world.inc), world.state(world.first)) == ("damaged", "damaged")
    run.claim = replace(run.claim, attempt=2)
    run.finish(Verify().run(run, world.scene.ours))
    assert (world.scene.job(run.claim.job_id).state, world.state(world.inc), world.state(world.first)) == ("succeeded", "sealed", "sealed")
    (healed,) = world.proofs(world.inc)[-3]["facts"]["healed"]
    assert [source["recovery_point"] for source in healed["sources"]] == [world.second]
    assert world.is_as_sealed()
    assert not list(world.sealed.folder(world.inc).parent.glob(".*"))


# --- the live disk ----------------------------------------------------------------------------------


def test_a_block_that_the_guest_has_not_written_since_is_taken_from_its_disk(lonely: World) -> None:
    publish(lonely, lonely.sealed.disk.path)
    flips_a_bit(image(lonely, lonely.first), data_at(image(lonely, lonely.first)))
    job = lonely.heal(lonely.inc)
    assert (job.state, lonely.is_as_sealed()) == ("succeeded", True)
    assert job.result is not None
    (healed,) = job.result["verify"]["healing"]
    assert [source["source"] for source in healed["sources"]] == ["live_disk"]


def test_a_block_that_the_guest_has_written_since_is_not_taken(lonely: World, tmp_path: Path) -> None:
    disk = tmp_path / "live.qcow2"
    shutil.copy(lonely.sealed.disk.path, disk)
    Disk(disk).write((9, MIB + 65536, 4096))
    publish(lonely, disk)
    flips_a_bit(image(lonely, lonely.first), data_at(image(lonely, lonely.first)))
    job = lonely.heal(lonely.inc)
    assert (job.state, lonely.state(lonely.first)) == ("failed", "damaged")


@pytest.mark.parametrize("file", ["/nowhere/disk.qcow2", "/dev/null"])
def test_a_live_disk_that_cannot_be_read_is_one_place_less(lonely: World, file: str) -> None:
    publish(lonely, Path(file))
    flips_a_bit(image(lonely, lonely.first), data_at(image(lonely, lonely.first)))
    job = lonely.heal(lonely.inc)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")


def publish(world: World, disk: Path) -> None:
    """The domain is on this host, as its worker has published it."""
    with world.database.write() as session:
        add_host(session)
        add_domain(session, "db1", DOMAIN, HOST, disks=[{"target": "vda", "source": str(disk), "format": "qcow2"}])


# --- by plan ----------------------------------------------------------------------------------------


def test_damage_is_found_and_healed_by_plan(world: World) -> None:
    with world.database.write() as session:
        add_host(session)
        verification.set_budget(session, world.sealed.id, Budget())
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))
    clock = [0.0]
    loop = VerificationLooks(world.database, lambda: None, lambda: clock[0])
    for _ in world.sealed.points:
        clock[0] += IDLE_S
        if loop.look():
            world.scene.execution.execute(world.scene.claim())
    with world.database.read() as session:
        runs = verification.runs_since(session, world.sealed.id, BEGIN)
    assert {run.point_id: run.outcome for run in runs} == {world.inc: "healed", world.second: "good"}
    assert world.is_as_sealed()


def test_a_repository_that_cannot_be_written_is_left_alone(world: World) -> None:
    """The file stays damaged, and the job says why it was not healed."""
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))

    class ReadOnly(Repository):
        def begin_point(self, *_: Any) -> Any:
            raise RepositoryReadOnly(path=self.path, reason="it is mounted so")

    world.use(Verify(open_repository=ReadOnly))
    job = world.heal(world.inc)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert job.result is not None
    (healed,) = job.result["verify"]["healing"]
    assert "it is mounted so" in healed["reason"]


def test_a_disk_of_the_guest_that_hangs_is_not_taken_for_a_repository_that_does(world: World) -> None:
    publish(world, world.sealed.disk.path)
    flips_a_bit(image(world, world.first), data_at(image(world, world.first)))

    class Hangs(Repository):
        def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
            if step == "heal_file" and arguments["live"]:
                raise RepositoryNotAnswering(path=self.path, step=step, silent_s=60.0)
            return super().call(step, arguments, **options)

    world.use(Verify(open_repository=Hangs))
    assert (world.heal(world.inc).state, world.is_as_sealed()) == ("succeeded", True)
