"""A backup into a repository with a key leaves nothing of the machine unencrypted, and a restore gives all of it back."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from service.db.engine import Database
from service.jobs.restore_tpm import TpmSwap
from service.model.repository import STATE_FILE
from tests.jobs.restoring import RestoreScene
from tests.jobs.test_backup_bad_input import with_key
from tests.jobs.test_restore_killed import with_firmware
from tests.jobs.test_restore_tpm import content, swap_of
from tests.scenes.backups import BackupScene
from tests.scenes.host import error_of


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("correct horse")
    return path


def test_no_file_of_the_point_holds_what_only_the_key_may_show(sqlite_database: Database, tmp_path: Path, key: Path) -> None:
    scene = BackupScene(sqlite_database, tmp_path)
    with_key(scene, key)
    (tmp_path / "db1_VARS.fd").write_bytes(b"variables of UEFI")
    (tmp_path / "tpm2").mkdir()
    (tmp_path / "tpm2" / "permall").write_bytes(b"secrets of the TPM")
    tpm = f"<backend type='emulator' version='2.0'><source type='dir' path='{tmp_path / 'tpm2'}'/></backend>"
    scene.domain.definition.elements.append(ET.fromstring(f"<os><type>hvm</type><nvram>{tmp_path / 'db1_VARS.fd'}</nvram></os>"))
    scene.domain.definition.devices.append(ET.fromstring(f"<tpm model='tpm-crb'>{tpm}</tpm>"))

    job = scene.run()

    assert job.state == "succeeded", job.error
    (manifest,) = scene.manifests()
    folder = scene.path / manifest.folder
    names = {"vda.qcow2", "vda.blocks", STATE_FILE}
    assert {file.name for file in manifest.files} == names
    assert {file.name for file in folder.iterdir()} == names | {"manifest.json", "manifest.sig"}
    assert (manifest.state_files["nvram"], manifest.state_files["tpm"]) == ("nvram", ["tpm/permall"])
    stored = b"".join(file.read_bytes() for file in folder.iterdir())
    assert [secret for secret in (b"variables of UEFI", b"secrets of the TPM", b"<nvram>") if secret in stored] == []


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, key: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path, key=key)


def test_a_restore_gives_the_variables_of_the_firmware_back_and_its_plan_tells_a_wrong_key(
    scene: RestoreScene, tmp_path: Path, key: Path
) -> None:
    point = with_firmware(scene, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    right = key.read_text()
    key.write_text("another")
    plan = scene.restore("files", point, folder=str(out), plan_only=True)
    assert (plan.state, error_of(plan)["code"]) == ("failed", "key_unusable")
    key.write_text(right)
    job = scene.restore("files", point, folder=str(out))
    assert job.state == "succeeded", job.error
    assert [file.read_bytes() for file in out.iterdir() if file.suffix != ".qcow2"] == [b"variables"]


def test_a_restore_gives_the_state_of_the_tpm_back(scene: RestoreScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = swap_of(tmp_path / "swtpm", had_state=True)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "permall").write_text("restored")
    point = scene.seal(tpm=saved)
    monkeypatch.setattr(TpmSwap, "of", lambda _definition, _mark: swap)
    job = scene.restore("in_place", point)
    assert job.state == "succeeded", job.error
    assert (content(swap.state), content(swap.old)) == ("restored", "old")
