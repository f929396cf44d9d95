"""Storage that answers nobody (a dead NFS mount): neither recovery nor `doctor` hangs in it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import bounded_io
from service.config import Settings
from service.db.engine import Database
from service.deadlines import HELPERS
from service.worker import doctor
from service.worker.finding import Health
from tests.scenes.deaths import die, recovered, story
from tests.scenes.host import FREEZE, Scene, error_of

ENOUGH_S = 5.0


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


@pytest.fixture
def hang_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Whoever looks at a file in this folder, or at itself, waits until the test is over."""
    over, look = threading.Event(), Path.stat
    # Dead workers of other tests may have left calls.
    before = HELPERS.left_behind()

    def hang(folder: Path) -> None:
        def stat(self: Path, **options: Any) -> Any:
            if self == folder or folder in self.parents:
                over.wait(60)
            return look(self, **options)

        monkeypatch.setattr(bounded_io, "PATIENCE_S", 0.1)
        monkeypatch.setattr(Path, "stat", stat)

    yield hang
    over.set()
    deadline = time.monotonic() + 10
    while HELPERS.left_behind() > before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_point_is_kept_though_nobody_can_say_when_its_files_were_written_last(scene: Scene, hang_in: Callable[[Path], None]) -> None:
    scene.ask()
    job_id = die(scene, scene.domain.die_in("snapshot_create", after=True))
    hang_in(scene.images)
    began = time.monotonic()
    job = recovered(scene, job_id)
    assert time.monotonic() - began < ENOUGH_S
    assert (job.state, error_of(job)["code"], scene.domain.agent.frozen) == ("failed", "worker_lost", set())
    (point,) = scene.points()
    assert [disk["allocated"] for disk in point.disks] == [None]


def test_files_that_nobody_can_look_for_are_named_as_left_behind(scene: Scene, hang_in: Callable[[Path], None]) -> None:
    scene.ask()
    job_id = die(scene, scene.domain.die_in(FREEZE))
    (overlay,) = scene.overlays()
    scene.domain.exists = False
    hang_in(scene.images)
    began = time.monotonic()
    job = recovered(scene, job_id)
    assert time.monotonic() - began < ENOUGH_S
    assert error_of(job)["code"] == "domain_gone"
    assert overlay in story(job)


def test_the_doctor_names_a_folder_of_overlays_that_does_not_answer(tmp_path: Path, hang_in: Callable[[Path], None]) -> None:
    folder = tmp_path / "overlays"
    folder.mkdir()
    settings = Settings(state_dir=tmp_path / "state", overlay_dir=folder, libvirt_uri="test:///default")
    hang_in(folder)
    began = time.monotonic()
    (found,) = [finding for finding in doctor.examine(settings) if finding.subject == "overlays"]
    assert time.monotonic() - began < ENOUGH_S
    assert found.health is Health.fail
    assert str(folder) in found.detail
    assert "100 ms" in found.detail
