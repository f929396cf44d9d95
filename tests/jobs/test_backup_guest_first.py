"""The guest comes first: whatever is away, its overlays are merged back before they have no space. What the point needs is kept at once."""

import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.disks import merge_space
from service.errors import DatabaseUnavailable, RepositoryNotAnswering
from service.jobs import guest_watch
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps
from tests.scenes.deaths import die, recovered
from tests.scenes.host import error_of
from tests.scenes.plant import wait_for

LOW_BYTES = 0
AMPLE_BYTES = 1 << 40
FULL = "full"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path, repository_patience_seconds=60.0)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def fill(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From the call on so many bytes are free for the overlays."""
    free = [AMPLE_BYTES]
    real = guest_watch.GuestWatch.__init__

    def looking_often(watch: guest_watch.GuestWatch, *arguments: Any, **more: Any) -> None:
        real(watch, *arguments, **more, free_bytes=lambda _: free[0], interval_s=0.05)

    monkeypatch.setattr(guest_watch.GuestWatch, "__init__", looking_often)
    return lambda left: free.__setitem__(0, left)


class Away:
    """A database that no write reaches until it is back."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._is_away = threading.Event()
        real = Database.write

        def write(database: Database, *arguments: Any, **more: Any) -> Any:
            if self._is_away.is_set():
                raise DatabaseUnavailable(reason="gone")
            return real(database, *arguments, **more)

        patch.setattr(Database, "write", write)

    def goes(self) -> None:
        self._is_away.set()

    def is_back(self) -> None:
        self._is_away.clear()


@pytest.fixture
def database_away(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


def begun(scene: BackupScene) -> tuple[str, threading.Thread]:
    job_id = scene.ask()
    thread = threading.Thread(target=scene.execution.execute, args=(scene.claim(),), daemon=True)
    thread.start()
    return job_id, thread


def ended(scene: BackupScene, begun: tuple[str, threading.Thread]) -> Job:
    begun[1].join(60)
    return scene.job(begun[0])


# --- the database is away -------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["begin_point", "copy_disk"])
def test_the_overlays_are_merged_while_the_database_is_away(
    scene: BackupScene, steps: Steps, fill: Callable[[int], None], database_away: Away, step: str
) -> None:
    def goes(_: Repository) -> None:
        database_away.goes()
        fill(LOW_BYTES)

    steps.after(step, goes)
    job = begun(scene)
    wait_for(lambda: scene.is_as_before() and "block_pivot" in scene.domain.log, "the merge")
    database_away.is_back()
    last = ended(scene, job)
    assert (last.state, error_of(last)["code"], scene.sealed()) == ("failed", "overlay_space_low", [])


def test_the_overlays_are_merged_when_the_database_goes_away_in_the_window(
    scene: BackupScene, fill: Callable[[int], None], database_away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scene.domain.snapshot_create

    def goes(xml: str, flags: int) -> None:
        real(xml, flags)
        database_away.goes()
        fill(LOW_BYTES)

    monkeypatch.setattr(scene.domain, "snapshot_create", goes)
    job = begun(scene)
    wait_for(lambda: "block_pivot" in scene.domain.log and scene.is_as_before(), "the merge")
    database_away.is_back()
    last = ended(scene, job)
    assert (last.state, error_of(last)["code"], last.verdict) == ("failed", "overlay_space_low", "none")


def test_a_sealed_point_comes_on_record_when_the_database_is_back_and_the_guest_did_not_wait(
    scene: BackupScene, steps: Steps, fill: Callable[[int], None], database_away: Away
) -> None:
    def goes(_: Repository) -> None:
        database_away.goes()
        fill(LOW_BYTES)

    steps.after("publish", goes)
    job = begun(scene)
    wait_for(lambda: "block_pivot" in scene.domain.log and scene.is_as_before(), "the merge")
    database_away.is_back()
    last = ended(scene, job)
    assert (last.state, len(scene.sealed()), len(scene.manifests())) == ("succeeded", 1, 1), last.error


def test_a_copy_that_was_given_up_while_the_database_was_away_does_not_continue_after_a_death(
    scene: BackupScene, steps: Steps, fill: Callable[[int], None], database_away: Away
) -> None:
    """The database still says that the copy goes on, and the disk is still on its overlay. But a merge was begun."""

    def goes(_: Repository) -> None:
        database_away.goes()
        fill(LOW_BYTES)

    steps.after("begin_point", goes)
    moment = scene.domain.die_in("block_commit_active")
    scene.ask()
    run = scene.claim()
    threading.Thread(target=scene.execution.execute, args=(run,), daemon=True).start()
    assert moment.wait(30)
    database_away.is_back()
    scene.die_in(run)
    fill(AMPLE_BYTES)
    job = recovered(scene, run.claim.job_id)
    assert (job.state, scene.is_as_before(), (job.intent or {}).get("own")) == ("queued", True, None)
    assert scene.run_again(job.id).state == "succeeded"
    assert scene.freezes() == 2


# --- the repository is away -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["begin_point", "put_file", "seal", "publish"])
def test_a_job_that_waits_for_its_repository_looks_at_the_space(
    scene: BackupScene, steps: Steps, fill: Callable[[int], None], step: str
) -> None:
    def away(_: Repository) -> None:
        fill(LOW_BYTES)
        raise RepositoryNotAnswering(path="/repository", step=step, silent_s=60.0)

    steps.before(step, away, times=None)
    began = time.monotonic()
    job = scene.run()
    assert (job.state, error_of(job)["code"], scene.is_as_before()) == ("failed", "overlay_space_low", True)
    assert time.monotonic() - began < 50


# --- the worker stops -----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [3, 5])
def test_a_worker_that_stops_leaves_the_overlays_only_with_ample_space(
    scene: BackupScene, steps: Steps, fill: Callable[[int], None], parts: int
) -> None:
    job_id = scene.ask()
    run = scene.claim()

    def stop(_: Repository) -> None:
        grown = sum(merge_space.allocated_bytes(str(scene.images / name)) for name in scene.overlays())
        fill(parts * scene.settings.overlay_reserve_bytes // 2 + grown)
        run.ends_at = time.monotonic()

    steps.before("copy_disk", stop)
    scene.execution.execute(run)
    if parts == 3:
        assert (error_of(scene.job(job_id))["code"], scene.is_as_before()) == ("overlay_space_low", True)
    else:
        assert (scene.job(job_id).state, len(scene.overlays())) == ("running", 1)


# --- what the domain keeps outside its disks ------------------------------------------------------


def with_nvram(scene: BackupScene, folder: Path) -> Path:
    nvram = folder / "db1_VARS.fd"
    nvram.write_bytes(b"at the point")
    scene.domain.definition.elements.append(ET.fromstring(f"<os><type>hvm</type><nvram>{nvram}</nvram></os>"))
    return nvram


def kept(scene: BackupScene) -> list[Path]:
    return [path for path in (scene.settings.state_dir / "backups").rglob("*") if path.is_file()]


def test_the_variables_of_the_firmware_are_those_of_the_point(scene: BackupScene, steps: Steps, tmp_path: Path) -> None:
    nvram = with_nvram(scene, tmp_path)
    steps.before("begin_point", lambda _: nvram.write_bytes(b"hours later"))
    job = scene.run()
    (manifest,) = scene.manifests()
    assert (scene.path / manifest.folder / "nvram").read_bytes() == b"at the point"
    until = datetime.fromisoformat(next(phase["started_at"] for phase in job.phases if phase["name"] == "transfer"))
    assert datetime.fromisoformat(manifest.point_in_time_at) <= datetime.fromisoformat(manifest.state_files["taken_at"]) <= until
    assert kept(scene) == []


def test_after_a_death_the_variables_of_the_firmware_are_still_those_of_the_point(scene: BackupScene, steps: Steps, tmp_path: Path) -> None:
    nvram = with_nvram(scene, tmp_path)
    moment = steps.die_in("begin_point")
    scene.ask()
    job_id = die(scene, moment)
    (file,) = kept(scene)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    nvram.write_bytes(b"hours later")
    assert scene.run_again(recovered(scene, job_id).id).state == "succeeded"
    (manifest,) = scene.manifests()
    assert ((scene.path / manifest.folder / "nvram").read_bytes(), kept(scene)) == (b"at the point", [])


def test_a_backup_that_recovery_gives_up_keeps_no_state_of_the_guest(scene: BackupScene, steps: Steps, tmp_path: Path) -> None:
    with_nvram(scene, tmp_path)
    moment = steps.die_in("copy_disk")
    scene.ask(max_attempts=1)
    recovered(scene, die(scene, moment))
    assert kept(scene) == []
