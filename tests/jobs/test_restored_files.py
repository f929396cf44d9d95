"""Whose the files of a restore are: QEMU must be able to open them also on a host whose libvirt gives no file away."""

import os
import stat
from pathlib import Path

import pytest

from service.db.engine import Database
from service.hypervisor.qemu_process import Credentials
from service.jobs import restore_host
from tests.jobs.restoring import RestoreScene
from tests.scenes.host import error_of

QEMU = Credentials(64055, 104, ())
ANOTHER = (4321, 8765)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreScene:
    monkeypatch.setattr(restore_host, "qemu_user", lambda *_: QEMU)
    return RestoreScene(sqlite_database, tmp_path)


def owner_and_mode(path: str | Path) -> tuple[int, int, int]:
    status = Path(path).stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_the_disk_of_a_new_domain_is_for_the_user_of_qemu_alone(scene: RestoreScene) -> None:
    job = scene.restore("new")
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert owner_and_mode(new.source("vda")) == (QEMU.uid, QEMU.gid, 0o600)


def test_so_is_the_overlay_of_an_instant_restore(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by its group: another user could not read the repository in a folder of pytest."""
    monkeypatch.setattr(restore_host, "qemu_user", lambda *_: Credentials(os.getuid(), QEMU.gid, ()))
    job = scene.restore("instant")
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert owner_and_mode(new.source("vda")) == (os.getuid(), QEMU.gid, 0o600)


def test_in_place_the_new_disk_has_the_owner_and_the_mode_of_the_old_one(scene: RestoreScene) -> None:
    os.chown(scene.disk_file, *ANOTHER)
    scene.disk_file.chmod(0o640)
    job = scene.restore("in_place")
    assert job.state == "succeeded", error_of(job)
    assert owner_and_mode(scene.domain.source("vda")) == (*ANOTHER, 0o640)


def test_in_place_of_a_disk_that_was_lost_the_new_one_is_for_the_user_of_qemu(scene: RestoreScene) -> None:
    scene.disk_file.unlink()
    job = scene.restore("in_place")
    assert job.state == "succeeded", error_of(job)
    assert owner_and_mode(scene.domain.source("vda")) == (QEMU.uid, QEMU.gid, 0o600)


def test_files_that_no_domain_uses_are_given_to_nobody(scene: RestoreScene, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    job = scene.restore("files", folder=str(tmp_path / "out"))
    assert job.state == "succeeded", error_of(job)
    us = (tmp_path / "out").stat()
    assert owner_and_mode(tmp_path / "out" / "vda.qcow2") == (us.st_uid, us.st_gid, 0o600)
