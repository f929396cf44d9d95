"""A guest that does not answer is called frozen unless it has a hook and goes on writing to every disk that could be frozen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.db.engine import Database
from service.freeze import hung_hook, seen_writing
from service.freeze.frozen_pass import PassSettings
from service.jobs.snapshot import Snapshot
from tests.fakes import FakeDomain
from tests.scenes.host import FREEZE, Scene, error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(hung_hook, "WATCH_S", 0.1)
    monkeypatch.setattr(seen_writing, "PAUSE_S", 0.01)
    scene = Scene(sqlite_database, tmp_path, ("vda", "vdb"))
    scene.domain.agent.hook = "ok"
    return scene


def error_after(scene: Scene, break_it: Callable[[FakeDomain], None], at: str) -> str:
    job_id = scene.ask()
    scene.domain.when_next(at, lambda: break_it(scene.domain))
    scene.run_by(Snapshot(PassSettings(thaw_patience_s=0.2)))
    return str(error_of(scene.job(job_id))["code"])


def hang(domain: FakeDomain) -> None:
    """The agent waits for its hook and answers nobody; the guest writes on."""
    domain.agent.answers = False
    domain.agent.frozen.clear()


def fall_silent(domain: FakeDomain) -> None:
    """What is frozen stays frozen."""
    domain.agent.answers = False


@pytest.mark.parametrize("at", [FREEZE, "snapshot_create"], ids=["at the freeze", "at the thaw"])
def test_a_hook_that_does_not_end_is_told_from_a_frozen_guest(scene: Scene, at: str) -> None:
    assert error_after(scene, hang, at) == "guest_hook_hangs"


def test_a_guest_that_writes_nothing_is_called_frozen(scene: Scene) -> None:
    assert error_after(scene, fall_silent, "snapshot_create") == "guest_still_frozen"


def test_one_disk_that_stands_still_is_enough(scene: Scene) -> None:
    def half(domain: FakeDomain) -> None:
        domain.agent.answers = False
        domain.agent.frozen = {"vdb"}

    assert error_after(scene, half, "snapshot_create") == "guest_still_frozen"


def test_an_idle_guest_is_called_frozen_because_nothing_shows_that_it_is_not(scene: Scene) -> None:
    scene.domain.is_idle = True
    assert error_after(scene, hang, "snapshot_create") == "guest_still_frozen"


def test_a_guest_without_a_hook_has_none_that_could_hang(scene: Scene) -> None:
    scene.domain.agent.hook = None
    assert error_after(scene, hang, "snapshot_create") == "guest_still_frozen"
