"""Storage that fails as it does in the field: the watch says what it is, a verify proves nothing by it, and nobody else waits."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from tests.lab.bad_storage import Storage, storage
from tests.scenes.plant import wait_for
from tests.scenes.sealed import Sealed
from tests.scenes.verified import Verifying
from tests.scenes.watched import Watched

MIB = 1 << 20
SILENCE_S = 1.0


@pytest.fixture
def disk() -> Iterator[Storage]:
    with storage("watched", mb=64) as made:
        yield made


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(sqlite_database, tmp_path)
    yield made
    made.stopping.set()
    have_ended = [watch.stop(30) for watch in made.watches]
    assert all(have_ended)


@pytest.fixture
def sealed(world: Watched, disk: Storage, tmp_path: Path) -> Sealed:
    """Registered, seen once, with two points on record. The disk of its guest is elsewhere."""
    made = Sealed(disk.path / "repository", guest=tmp_path)
    made.seal((1, 0, MIB))
    made.seal((2, MIB, MIB))
    world.register("bad", made.path)
    world.import_points("bad")
    return made


def state(world: Watched, *, silence_s: float = SILENCE_S) -> str:
    world.look("bad", watch=world.watch(silence_s=silence_s))
    return world.row("bad").state


def test_a_repository_without_room_is_full(world: Watched, sealed: Sealed, disk: Storage) -> None:
    with disk.full():
        assert state(world) == "full"
    assert state(world) == "ready"


def test_a_repository_that_is_mounted_read_only_says_so(world: Watched, sealed: Sealed, disk: Storage) -> None:
    with disk.read_only(patience_s=5) as is_done:
        assert is_done
        assert state(world) == "read_only"
    assert state(world) == "ready"


def test_a_repository_whose_disk_is_not_mounted_is_gone_and_nothing_is_made_in_its_folder(
    world: Watched, sealed: Sealed, disk: Storage
) -> None:
    with disk.gone():
        assert state(world) == "gone"
        assert list(disk.path.iterdir()) == []
    assert state(world) == "ready"


@pytest.mark.parametrize("fault", ["hung", "frozen"])
def test_a_repository_that_hangs_does_not_answer_and_delays_no_other_one(world: Watched, sealed: Sealed, disk: Storage, fault: str) -> None:
    world.register("new")
    with getattr(disk, fault)():
        watch = world.watch(silence_s=SILENCE_S)
        watch.look_at_due()
        wait_for(lambda: world.row("new").state == "ready", "the look at the other one")
        wait_for(lambda: world.row("bad").state == "not_answering", "the look at the one that hangs")
    wait_for(lambda: state(world) == "ready", "a look after it answers again")


def test_a_stop_does_not_wait_for_storage_that_hangs(world: Watched, sealed: Sealed, disk: Storage) -> None:
    with disk.hung():
        watch = world.watch(silence_s=3600.0)
        watch.look_at_due()
        begin = time.monotonic()
        world.stopping.set()
        assert watch.stop()
        assert time.monotonic() - begin < 3
    world.stopping.clear()


def test_a_read_only_repository_can_be_imported(world: Watched, sealed: Sealed, disk: Storage) -> None:
    with disk.read_only(patience_s=5):
        result = world.import_points("bad")
    assert (result["error"], result["known"], result["missing"]) == (None, 2, 0)


@pytest.mark.parametrize("fault", ["hung", "gone"])
def test_a_verify_of_a_point_that_cannot_be_read_proves_nothing(
    world: Watched, sealed: Sealed, disk: Storage, fault: str, tmp_path: Path
) -> None:
    verifying = Verifying(world.database, tmp_path, sealed, silence_s=SILENCE_S)
    top = sealed.points[-1]
    with getattr(disk, fault)():
        job = verifying.verify(top)
    row = sealed.row(world.database, top)
    # An import has looked at the signature.
    proven = [proof["kind"] for proof in row.proofs or () if proof["kind"] != "signature"]
    assert (job.state, proven, row.state) == ("failed", [], "sealed")
    assert job.error is not None
    assert job.error["code"] == {"hung": "repository_not_answering", "gone": "repository_gone"}[fault]
    assert verifying.verify(top, checks=["bytes"]).state == "succeeded"


def test_storage_that_dies_proves_nothing(world: Watched, sealed: Sealed, disk: Storage, tmp_path: Path) -> None:
    """An input/output error says that the storage fails. Another path to it, or a repair, may read the same bytes."""
    verifying = Verifying(world.database, tmp_path, sealed, silence_s=SILENCE_S)
    top = sealed.points[-1]
    disk.dies()
    assert verifying.verify(top).state == "failed"
    assert sealed.row(world.database, top).state == "sealed"


def test_a_slow_repository_is_verified_and_takes_its_time(world: Watched, sealed: Sealed, disk: Storage, tmp_path: Path) -> None:
    """Slow is not silent: the limit is for storage from which nothing comes."""
    verifying = Verifying(world.database, tmp_path, sealed, silence_s=5.0)
    with disk.slow(4 * MIB):
        job = verifying.verify(sealed.points[-1], checks=["bytes"])
    assert job.state == "succeeded"


def test_the_jobs_of_others_run_while_a_verify_hangs(world: Watched, sealed: Sealed, disk: Storage, tmp_path: Path) -> None:
    verifying = Verifying(world.database, tmp_path, sealed, silence_s=20.0)
    verifying.ask(sealed.points[-1])
    run = verifying.scene.claim()
    thread = threading.Thread(target=verifying.scene.execution.execute, args=(run,))
    with disk.hung():
        thread.start()
        ended = verifying.scene.run("snapshot")
        assert ended.error is None, ended.error
        run.cancel_requested.set()
        thread.join(20)
        assert not thread.is_alive()
    assert verifying.scene.job(run.claim.job_id).state == "cancelled"
