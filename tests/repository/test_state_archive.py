"""In a repository with a key, definition, NVRAM and TPM state are in one encrypted archive."""

import copy
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import ForeignEntry, KeyUnusable, PointDamaged, StorageRefused, VersionUnknown
from service.model import manifest as manifests
from service.model.manifest import Manifest
from service.model.repository import DEFINITION_FILE, STATE_FILE
from service.repository.keys import Key
from service.repository.store import Repository
from tests.repository.test_restoring import flip
from tests.scenes.sealed import DEFINITION, DOMAIN, Sealed

SECRET = "correct horse"
SECRETS = (b"the owner key of a TPM", b"a variable of UEFI", b"<secret-definition/>")
MIB = 1 << 20


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """Made once: QEMU takes seconds for each container that it makes."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "key").write_text(SECRET)
    made = Sealed(folder / "repository", key=folder / "key")
    made.seal((1, 0, MIB))
    return made


@pytest.fixture
def sealed(original: Sealed, key: Path, tmp_path: Path) -> Sealed:
    """A copy of the test's own."""
    mine = copy.copy(original)
    mine.path, mine.key = tmp_path / "a repository, with: signs", Key(f"file:{key}")
    mine.points, mine.manifests = list(original.points), dict(original.manifests)
    shutil.copytree(original.path, mine.path)
    return mine


@pytest.fixture
def unfinished(sealed: Sealed) -> Iterator[tuple[Repository, str]]:
    with sealed.opened() as repository:
        yield repository, repository.begin_point(DOMAIN, "20261127T210000Z-11111111").partial


def of_host(folder: Path) -> dict[str, str | Path]:
    (folder / "permall").write_bytes(SECRETS[0])
    (folder / "vars.fd").write_bytes(SECRETS[1] * 1000)
    return {"tpm/permall": folder / "permall", "nvram": folder / "vars.fd"}


def test_nothing_of_the_state_can_be_read_without_the_key(unfinished: tuple[Repository, str], sealed: Sealed, tmp_path: Path) -> None:
    repository, partial = unfinished
    repository.put_state(partial, {DEFINITION_FILE: SECRETS[2].decode()}, of_host(tmp_path))
    folder = sealed.path / partial
    assert {file.name for file in folder.iterdir()} == {STATE_FILE, "partial.json"}
    stored = (folder / STATE_FILE).read_bytes()
    assert [secret for secret in SECRETS if secret in stored] == []


def test_qemu_img_and_tar_read_what_was_put_there(unfinished: tuple[Repository, str], sealed: Sealed, key: Path, tmp_path: Path) -> None:
    repository, partial = unfinished
    repository.put_state(partial, {DEFINITION_FILE: "<domain>ü</domain>"}, of_host(tmp_path))
    assert by_hand(sealed.path / partial / STATE_FILE, key, tmp_path) == {
        DEFINITION_FILE: "<domain>ü</domain>".encode(),
        "tpm/permall": SECRETS[0],
        "nvram": SECRETS[1] * 1000,
    }


def by_hand(container: Path, key: Path, scratch: Path) -> dict[str, bytes]:
    name = "json:" + json.dumps({"driver": "luks", "key-secret": "k", "file": {"driver": "file", "filename": str(container)}})
    command = ["qemu-img", "convert", "--object", f"secret,id=k,file={key}", "-O", "raw", name, str(scratch / "state.tar")]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO((scratch / "state.tar").read_bytes())) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_the_state_can_be_put_again_as_after_a_death(unfinished: tuple[Repository, str], sealed: Sealed, key: Path, tmp_path: Path) -> None:
    repository, partial = unfinished
    for text in ("<first/>", "<second/>"):
        repository.put_state(partial, {DEFINITION_FILE: text}, {})
    assert by_hand(sealed.path / partial / STATE_FILE, key, tmp_path) == {DEFINITION_FILE: b"<second/>"}


def test_what_an_earlier_version_left_unencrypted_in_an_unfinished_point_is_removed(
    unfinished: tuple[Repository, str], sealed: Sealed, tmp_path: Path
) -> None:
    repository, partial = unfinished
    files = of_host(tmp_path)
    repository.put_text(partial, DEFINITION_FILE, "<domain/>")
    for name, file in files.items():
        repository.put_file(partial, name, file)
    repository.put_state(partial, {DEFINITION_FILE: "<domain/>"}, files)
    assert {file.name for file in (sealed.path / partial).iterdir()} == {STATE_FILE, "partial.json"}


def test_a_file_of_the_host_that_is_not_there_is_named(unfinished: tuple[Repository, str], sealed: Sealed, tmp_path: Path) -> None:
    repository, partial = unfinished
    with pytest.raises(StorageRefused) as caught:
        repository.put_state(partial, {}, {"nvram": tmp_path / "gone"})
    assert caught.value.facts["path"] == str(tmp_path / "gone")
    assert {file.name for file in (sealed.path / partial).iterdir()} == {"partial.json"}


def test_only_an_unfinished_point_takes_state(sealed: Sealed) -> None:
    with sealed.opened() as repository, pytest.raises(ForeignEntry):
        repository.put_state(sealed.manifests[sealed.points[0]].folder, {DEFINITION_FILE: "<other/>"}, {})


def test_a_repository_without_a_key_takes_no_encrypted_state(unfinished: tuple[Repository, str], sealed: Sealed) -> None:
    _, partial = unfinished
    with Repository(str(sealed.path), sealed.id) as keyless, pytest.raises(KeyUnusable):
        keyless.put_state(partial, {DEFINITION_FILE: "<domain/>"}, {})


def test_a_sealed_point_gives_its_definition_and_its_files_back(sealed: Sealed, tmp_path: Path) -> None:
    folder = sealed.manifests[sealed.points[0]].folder
    with sealed.opened() as repository:
        assert repository.definition(folder) == DEFINITION
        assert repository.copy_out(folder, DEFINITION_FILE, tmp_path / "out.xml") == len(DEFINITION)
    assert (tmp_path / "out.xml").read_text() == DEFINITION


def test_a_file_with_the_name_of_one_in_the_archive_is_not_taken_for_it(sealed: Sealed) -> None:
    (sealed.folder(sealed.points[0]) / DEFINITION_FILE).write_text("<of-another-writer/>")
    with sealed.opened() as repository:
        assert repository.definition(sealed.manifests[sealed.points[0]].folder) == DEFINITION


def test_a_point_of_an_earlier_version_whose_definition_is_not_encrypted_can_be_read(sealed: Sealed, tmp_path: Path) -> None:
    sealed.is_of_an_earlier_version = True
    point = sealed.seal((2, MIB, MIB))
    folder = sealed.manifests[point].folder
    assert (sealed.folder(point) / DEFINITION_FILE).read_text() == DEFINITION
    with sealed.opened() as repository:
        assert repository.definition(folder) == DEFINITION
        assert repository.copy_out(folder, DEFINITION_FILE, tmp_path / "out.xml") == len(DEFINITION)
        assert repository.call("verify_point", {"folder": folder, "checks": ["bytes"]})["bytes"]["ok"]


@pytest.mark.parametrize("secret", ["another", None])
def test_a_wrong_key_or_none_is_told_and_is_no_damage(sealed: Sealed, key: Path, secret: str | None) -> None:
    folder = sealed.manifests[sealed.points[0]].folder
    if secret is not None:
        key.write_text(secret)
    used = Key(f"file:{key}") if secret is not None else None
    with Repository(str(sealed.path), sealed.id, used) as repository, pytest.raises(KeyUnusable):
        repository.definition(folder)


def test_an_altered_archive_is_damage_and_gives_nothing(sealed: Sealed, tmp_path: Path) -> None:
    folder = sealed.folder(sealed.points[0])
    flip(folder / STATE_FILE, at=(folder / STATE_FILE).stat().st_size - 4096)
    with sealed.opened() as repository:
        for take in (repository.definition, lambda of: repository.copy_out(of, DEFINITION_FILE, tmp_path / "out.xml")):
            with pytest.raises(PointDamaged) as caught:
                take(sealed.manifests[sealed.points[0]].folder)
            assert caught.value.facts["path"] == str(folder / STATE_FILE)
    assert not (tmp_path / "out.xml").exists()


def test_a_verify_with_the_key_finds_an_archive_without_a_file_that_the_manifest_names(sealed: Sealed) -> None:
    point = sealed.points[0]
    sealed.change_manifest(point, sign_again=True, state_files={**sealed.state_files, "nvram": "nvram"})
    folder = sealed.manifests[point].folder
    with sealed.opened() as repository, Repository(str(sealed.path), sealed.id) as keyless:
        found = repository.call("verify_point", {"folder": folder, "checks": ["bytes"]})["bytes"]
        without = keyless.call("verify_point", {"folder": folder, "checks": ["bytes"]})["bytes"]
    assert (found["ok"], [fault["file"] for fault in found["faults"]], without["ok"]) == (False, [STATE_FILE], True)


def test_an_earlier_service_refuses_a_point_whose_state_it_would_look_for_in_vain(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    document = sealed.manifests[sealed.points[0]].as_document()
    plain = Sealed(sealed.path.parent / "plain")
    plain.seal((1, 0, MIB))
    of_plain = plain.manifests[plain.points[0]].as_document()
    monkeypatch.setattr(manifests, "VERSION", 1)
    with pytest.raises(VersionUnknown):
        Manifest.from_document(document)
    assert Manifest.from_document(of_plain).as_document() == of_plain
