"""The guest during a backup: paused by an error, short of space, slow. And what the domain keeps outside its disks."""

import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from service.db.engine import Database
from service.jobs import guest_watch
from service.model.inventory import DomainState
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps
from tests.scenes.host import error_of

PATIENCE_S = 20.0


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def copy_for_long(repository: Repository) -> None:
    """A copy that looks at its guest all the time, and does not end by itself."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert repository.safe_point is not None
        repository.safe_point()
        time.sleep(0.02)


def test_a_guest_that_an_io_error_pauses_is_continued_when_its_overlays_are_merged(scene: BackupScene, steps: Steps) -> None:
    def pause(repository: Repository) -> None:
        scene.domain.pause_by_io_error()
        copy_for_long(repository)

    steps.before("copy_disk", pause)
    job = scene.run()
    error = error_of(job)
    assert (error["code"], error["facts"]["resumed"]) == ("guest_paused_by_io_error", True)
    assert (scene.host.guest("db1").state(), scene.is_as_before()) == (DomainState.running, True)
    assert job.result is not None
    assert job.result["backup"]["impact"]["paused_by_error"] is True


def test_the_copy_ends_before_the_overlays_have_no_space_left(scene: BackupScene, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(repository: Repository) -> None:
        scene.domain.log.append("full")
        copy_for_long(repository)

    real = guest_watch.GuestWatch.__init__

    def with_little_space(watch: guest_watch.GuestWatch, *arguments: object, **more: object) -> None:
        real(watch, *arguments, **more, free_bytes=lambda _: 0 if "full" in scene.domain.log else 1 << 40)  # type: ignore[arg-type]

    monkeypatch.setattr(guest_watch.GuestWatch, "__init__", with_little_space)
    steps.before("copy_disk", fill)
    job = scene.run()
    assert (job.state, error_of(job)["code"]) == ("failed", "overlay_space_low")
    assert (scene.is_as_before(), scene.sealed(), scene.our_checkpoints()) == (True, [], [])


def test_what_the_guest_felt_is_in_the_result(scene: BackupScene) -> None:
    job = scene.run()
    assert job.result is not None
    impact = job.result["backup"]["impact"]
    assert impact["paused_by_error"] is False


def test_the_variables_of_the_firmware_are_a_part_of_the_point(scene: BackupScene, tmp_path: Path) -> None:
    nvram = tmp_path / "db1_VARS.fd"
    nvram.write_bytes(b"variables")
    scene.domain.definition.elements.append(ET.fromstring(f"<os><type>hvm</type><nvram>{nvram}</nvram></os>"))
    job = scene.run()
    assert job.state == "succeeded", job.error
    (manifest,) = scene.manifests()
    assert manifest.state_files["nvram"] == "nvram"
    assert (scene.path / manifest.folder / "nvram").read_bytes() == b"variables"
    assert {file.name for file in manifest.files} >= {"nvram", "domain.xml", "vda.qcow2", "vda.blocks"}


def test_the_state_of_the_tpm_is_a_part_of_the_point(scene: BackupScene, tmp_path: Path) -> None:
    folder = tmp_path / "tpm2"
    folder.mkdir()
    (folder / "tpm2-00.permall").write_bytes(b"secrets")
    (folder / ".lock").touch()
    tpm = f"<tpm model='tpm-crb'><backend type='emulator' version='2.0'><source type='dir' path='{folder}'/></backend></tpm>"
    scene.domain.definition.devices.append(ET.fromstring(tpm))
    job = scene.run()
    assert job.state == "succeeded", job.error
    (manifest,) = scene.manifests()
    assert manifest.state_files["tpm"] == ["tpm/tpm2-00.permall"]
    assert (scene.path / manifest.folder / "tpm/tpm2-00.permall").read_bytes() == b"secrets"


def test_the_definition_in_the_point_names_the_disks_as_they_were_before_it(scene: BackupScene) -> None:
    source = scene.domain.source("vda")
    scene.run()
    (manifest,) = scene.manifests()
    named = ET.fromstring((scene.path / manifest.folder / "domain.xml").read_text()).find("./devices/disk/source")
    assert named is not None
    assert named.get("file") == source
