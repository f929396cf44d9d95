"""The key of a repository is tried on the points that are there, before anything is made with it."""

import shutil
from pathlib import Path

import pytest

from service.errors import KeyUnusable
from service.model.repository import STATE_FILE
from service.repository.keys import Key
from service.repository.store import Repository
from tests.scenes.sealed import DOMAIN, Sealed

MIB = 1 << 20
ELSEWHERE = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two points with the key `right`, the second by a version that encrypted the disks only. Made once: QEMU takes seconds for each."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "key").write_text("right")
    made = Sealed(folder / "repository", key=folder / "key")
    made.seal((1, 0, MIB))
    made.is_of_an_earlier_version = True
    made.seal((2, 0, MIB))
    return made.path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "a repository, with: signs"))


def tried(path: Path, secret: str | None, domain: str = DOMAIN) -> int:
    key_file = path.with_name("key")
    key_file.write_text(secret or "")
    with Repository(str(path), None, Key(f"file:{key_file}") if secret is not None else None) as repository:
        return int(repository.call("check_key", {"domain_id": domain})["tried"])


def points_of(path: Path) -> list[Path]:
    return sorted((path / "domains" / DOMAIN).iterdir())


@pytest.mark.parametrize("domain", [DOMAIN, ELSEWHERE])
def test_the_right_key_opens_the_newest_point(path: Path, domain: str) -> None:
    assert tried(path, "right", domain) == 1


@pytest.mark.parametrize("domain", [DOMAIN, ELSEWHERE])
def test_another_key_is_refused_with_the_file_that_it_does_not_open(path: Path, domain: str) -> None:
    with pytest.raises(KeyUnusable) as caught:
        tried(path, "wrong", domain)
    assert caught.value.facts["key"] == str(points_of(path)[-1] / "vda.qcow2")


def test_the_archive_with_the_state_is_enough(path: Path) -> None:
    newest = points_of(path)[-1]
    shutil.rmtree(newest)
    assert tried(path, "right") == 1
    with pytest.raises(KeyUnusable) as caught:
        tried(path, "wrong")
    assert caught.value.facts["key"] == str(points_of(path)[-1] / STATE_FILE)


def test_one_point_whose_header_is_damaged_does_not_make_the_key_wrong(path: Path) -> None:
    image = points_of(path)[-1] / "vda.qcow2"
    content = bytearray(image.read_bytes())
    # All key slots of LUKS are within the first two MiB.
    content[1 << 16 : 2 << 20] = bytes((2 << 20) - (1 << 16))
    image.write_bytes(content)
    assert tried(path, "right") >= 1


def test_unfinished_points_and_folders_of_others_say_nothing(path: Path) -> None:
    for point in points_of(path):
        point.rename(point.with_name(f".partial-{point.name}"))
    (path / "domains" / "lost+found").mkdir()
    (path / "domains" / "a file").write_text("not ours")
    assert tried(path, "wrong") == 0


def test_a_repository_without_encrypted_points_takes_every_key(tmp_path: Path) -> None:
    made = Sealed(tmp_path / "plain")
    made.seal((1, 0, MIB))
    assert tried(made.path, "any") == 0


def test_without_a_key_it_cannot_be_tried(path: Path) -> None:
    with pytest.raises(KeyUnusable):
        tried(path, None)
