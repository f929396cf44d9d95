"""A repository that fails in the middle of a copy costs the backup, at the worst. It costs the guest nothing, says its stall meter."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.hypervisor.checkpoints import prefix_of
from service.repository.store import Repository
from service.repository.sweeping import MIN_STALE_S
from tests.chaos.backups.invariants import HURT_MS
from tests.chaos.backups.watch import PauseWatch
from tests.lab.bad_storage import Storage, storage
from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.backups import BackupScene
from tests.live.test_backup import write
from tests.live.test_main_job import overlays_beside
from tests.scenes.backups import Steps

pytestmark = pytest.mark.live

METER = {"sync_every": 16, "interval_us": 5_000}
DATA_MB = 12
ROOM_BYTES = 2 << 20
HANGS_S = 4.0
"""For much longer than a write or an fdatasync takes on a busy machine, which is `HURT_MS`."""
SILENCE_S = 2.0

Fault = Callable[[Storage], AbstractContextManager[object]]


@pytest.fixture(scope="module")
def guest(lab: None) -> Iterator[LabGuest]:
    """One for all tests here. It writes all the time, and makes it durable."""
    guest = LabGuest(GuestOptions(name=f"lab-t-bad-repository-{os.getpid()}", meter=METER))
    try:
        guest.start_and_wait()
        write(guest, "bulk", DATA_MB)
        yield guest
    finally:
        guest.destroy()


@pytest.fixture
def disk(lab: None) -> Iterator[Storage]:
    with storage("backup", mb=96) as disk:
        yield disk


@pytest.fixture
def faults() -> Iterator[ExitStack]:
    with ExitStack() as faults:
        yield faults


@dataclass(frozen=True)
class Felt:
    """`longest_ms`: of all writes and fdatasyncs. `paused`: how often the domain was found paused by an I/O error."""

    job: Job
    longest_ms: float
    paused: int


def back_up(scene: BackupScene, guest: LabGuest) -> Felt:
    mark = guest.mark()
    watch = PauseWatch(guest.name)
    watch.start()
    try:
        job = scene.run(guest.name)
    finally:
        watch.stop()
    return Felt(job, max((stall.ms for stall in guest.stalls(mark)), default=0.0), watch.seen)


def scene_on(disk: Storage, database: Database, folder: Path, *, patience_s: float) -> BackupScene:
    settings = {"repository_silence_seconds": SILENCE_S, "repository_patience_seconds": patience_s}
    return BackupScene(database, folder, path=disk.path / "repository", **settings)


def is_read_only(disk: Storage) -> AbstractContextManager[object]:
    """No file is open in it between two steps."""
    return disk.read_only(patience_s=20.0)


FAULTS: dict[str, Fault] = {
    "repository_not_answering": Storage.hung,
    "repository_full": lambda disk: disk.full(but_bytes=ROOM_BYTES),
    "repository_read_only": is_read_only,
    "repository_gone": Storage.gone,
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_copy_that_the_repository_ends_leaves_the_guest_as_it_was(
    sqlite_database: Database,
    guest: LabGuest,
    disk: Storage,
    faults: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: str,
) -> None:
    scene = scene_on(disk, sqlite_database, tmp_path, patience_s=0.0)
    Steps(monkeypatch).before("copy_disk", lambda _: faults.enter_context(FAULTS[code](disk)))

    felt = back_up(scene, guest)

    assert (felt.job.state, (felt.job.error or {}).get("code")) == ("failed", code)
    assert (felt.job.verdict, felt.job.recovery_point) == ("none", None)
    has_felt_nothing(felt)
    is_as_before(guest, scene)
    # The next backup has nothing in its way. When a day has passed, it also removes what this one could not.
    faults.close()
    left = list(scene.path.rglob(".partial-*"))
    assert left == [] or code != "repository_full"
    make_older_than_a_day(left)
    job = scene.run(guest.name)
    assert (job.state, job.error, scene.levels(job)) == ("succeeded", None, {"vda": "full"})
    assert list(scene.path.rglob(".partial-*")) == []
    scene.close()


def test_a_storage_that_is_dead_in_the_middle_of_a_copy(
    sqlite_database: Database, guest: LabGuest, disk: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene = scene_on(disk, sqlite_database, tmp_path, patience_s=0.0)
    Steps(monkeypatch).before("copy_disk", lambda _: disk.dies())

    felt = back_up(scene, guest)

    assert (felt.job.state, (felt.job.error or {}).get("code")) == ("failed", "repository_refused")
    has_felt_nothing(felt)
    is_as_before(guest, scene)
    scene.close()


@pytest.mark.parametrize("code", ["repository_not_answering", "repository_full"])
def test_a_repository_that_comes_back_in_time_costs_nothing(
    sqlite_database: Database, guest: LabGuest, disk: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    def fail_for_a_while(_: Repository) -> None:
        fault, has_begun = FAULTS[code](disk), threading.Event()

        def hold() -> None:
            with fault:
                has_begun.set()
                time.sleep(HANGS_S)

        threading.Thread(target=hold).start()
        has_begun.wait()

    scene = scene_on(disk, sqlite_database, tmp_path, patience_s=60.0)
    steps = Steps(monkeypatch)
    steps.before("copy_disk", fail_for_a_while)

    felt = back_up(scene, guest)

    assert (felt.job.state, felt.job.error, felt.job.verdict) == ("succeeded", None, "filesystem")
    # It was met, and only the copy went on.
    assert steps.seen.count("copy_disk") > 1
    assert [phase["name"] for phase in felt.job.phases].count("freeze") == 1
    has_felt_nothing(felt)
    is_as_before(guest, scene, is_sealed=True)
    scene.close()


def make_older_than_a_day(folders: list[Path]) -> None:
    """The service takes a younger unfinished folder for that of a job that may continue."""
    past = time.time() - 2 * MIN_STALE_S
    for folder in folders:
        for path in [*folder.rglob("*"), folder]:
            os.utime(path, (past, past))


def has_felt_nothing(felt: Felt) -> None:
    assert felt.paused == 0
    assert felt.longest_ms < HURT_MS
    assert felt.job.result is None or felt.job.result["backup"]["impact"]["paused_by_error"] is False


def is_as_before(guest: LabGuest, scene: BackupScene, *, is_sealed: bool = False) -> None:
    """On its own disk, and recorded for no point of this repository but a sealed one."""
    assert guest.active_sources() == guest.disks
    assert (overlays_beside(guest), chain(guest.disks["vda"])) == (set(), [guest.disks["vda"]])
    assert guest.freeze_status() == "thawed"
    names = [checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()]
    mine = [name for name in names if name.startswith(prefix_of(scene.repository_id))]
    assert len(mine) == is_sealed
