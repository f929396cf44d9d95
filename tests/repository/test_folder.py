"""What a folder is told to be: this repository, another one, none, one that is full, or one that is not there."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import ForeignEntry, RepositoryBad, RepositoryFull, RepositoryGone, RepositoryReadOnly, RepositoryRefused
from service.model.repository import FORMAT, FORMAT_VERSION, RepositoryState
from service.repository.store import Repository
from tests.repository.conftest import REPOSITORY_ID
from tests.repository.damages import becomes_a_fifo, becomes_a_folder, becomes_a_link
from tests.repository.filesystems import SMALL_BYTES, read_only

ODD_NAMES = ["with a space", "with,a comma", "with:a colon", "with\na newline", "ü" * 127, "%s{}'\"\\$(x)", "-rf"]


def _created(path: Path) -> Repository:
    repository = Repository(str(path), REPOSITORY_ID)
    with repository:
        repository.create()
    return repository


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_absent_folder_becomes_a_repository(tmp_path: Path, name: str) -> None:
    with _created(tmp_path / name) as repository:
        look = repository.look()
    assert (look.id, look.version, look.is_writable, look.state) == (REPOSITORY_ID, FORMAT_VERSION, True, RepositoryState.ready)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / name / "repository.json").stat().st_mode & 0o777 == 0o600


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    with _created(tmp_path / "r") as repository:
        repository.look()
    assert [each.name for each in (tmp_path / "r").iterdir()] == ["repository.json"]


def test_an_empty_folder_becomes_a_repository_also_if_it_is_a_fresh_filesystem(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    _created(tmp_path)
    assert json.loads((tmp_path / "repository.json").read_text())["id"] == REPOSITORY_ID


def test_what_an_earlier_try_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".draft-77-aa").write_text("half")
    _created(tmp_path)


def test_to_create_it_again_changes_nothing(tmp_path: Path) -> None:
    _created(tmp_path)
    before = (tmp_path / "repository.json").read_bytes()
    _created(tmp_path)
    assert (tmp_path / "repository.json").read_bytes() == before


def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(RepositoryBad):
        _created(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["photos"]


def test_another_repository_is_refused_and_left_alone(tmp_path: Path) -> None:
    _created(tmp_path)
    other = str(uuid.UUID(int=2))
    with Repository(str(tmp_path), other) as repository:
        with pytest.raises(RepositoryBad):
            repository.create()
        with pytest.raises(RepositoryBad):
            repository.look()
    assert json.loads((tmp_path / "repository.json").read_text())["id"] == REPOSITORY_ID


def test_a_repository_whose_id_is_not_known_yet_says_it(tmp_path: Path) -> None:
    _created(tmp_path)
    with Repository(str(tmp_path), None) as repository:
        assert repository.look().id == REPOSITORY_ID


def test_a_folder_whose_parent_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RepositoryGone):
        _created(tmp_path / "not mounted" / "repository")
    assert not (tmp_path / "not mounted").exists()


@pytest.mark.parametrize("is_there", [True, False], ids=["an empty mount point", "an absent folder"])
def test_a_share_that_is_not_mounted_is_gone_and_not_bad(tmp_path: Path, is_there: bool) -> None:
    place = tmp_path / "share"
    if is_there:
        place.mkdir()
    with Repository(str(place), REPOSITORY_ID) as repository, pytest.raises(RepositoryGone):
        repository.look()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no json": lambda file: file.write_text("{"),
    "not an object": lambda file: file.write_text("[]"),
    "another format": lambda file: file.write_text('{"format": "restic", "version": 1, "id": "1"}'),
    "a newer version": lambda file: file.write_text(json.dumps({"format": FORMAT, "version": FORMAT_VERSION + 1, "id": REPOSITORY_ID})),
    "a version that is a text": lambda file: file.write_text(json.dumps({"format": FORMAT, "version": "1", "id": REPOSITORY_ID})),
    "no id": lambda file: file.write_text(json.dumps({"format": FORMAT, "version": FORMAT_VERSION})),
    "binary": lambda file: file.write_bytes(b"\xff\xfe"),
    "too large": lambda file: file.write_text(" " * 100_000),
    "deep": lambda file: file.write_text("[" * 60_000),
    "a link": becomes_a_link,
    "a folder": becomes_a_folder,
    "a fifo": becomes_a_fifo,
    "absent": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_folder_that_is_not_a_repository_any_more_is_bad(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    with _created(tmp_path) as repository:
        (tmp_path / "domains").mkdir()
        damage(tmp_path / "repository.json")
        with pytest.raises(RepositoryBad):
            repository.look()


def test_a_file_is_not_a_repository(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Repository(str(tmp_path / "file"), None) as repository, pytest.raises(RepositoryBad):
        repository.look()


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryRefused):
        _created(tmp_path / ("x" * 300))


def test_the_path_itself_may_have_links(tmp_path: Path) -> None:
    _created(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    with Repository(str(tmp_path / "link"), REPOSITORY_ID) as repository:
        assert repository.look().is_writable


def test_a_full_repository_is_told_and_can_still_be_read(small_filesystem: Path) -> None:
    with _created(small_filesystem) as repository:
        _fill(small_filesystem)
        look = repository.look()
        assert (look.is_writable, look.state, look.free_bytes) == (False, RepositoryState.full, 0)
        assert look.total_bytes == SMALL_BYTES
        with pytest.raises(RepositoryFull):
            look.require_space(repository.path)
        assert repository.points() == []


def test_a_repository_with_too_little_space_is_full_for_a_job_that_needs_more(small_filesystem: Path) -> None:
    with _created(small_filesystem) as repository:
        look = repository.look()
    look.require_space(repository.path, SMALL_BYTES // 2)
    with pytest.raises(RepositoryFull) as raised:
        look.require_space(repository.path, SMALL_BYTES)
    assert raised.value.facts == {"path": repository.path, "needed_bytes": SMALL_BYTES, "free_bytes": look.free_bytes}


def test_a_read_only_repository_is_told_and_can_still_be_read(tmp_path: Path) -> None:
    with _created(tmp_path / "r") as repository, read_only(tmp_path / "r"):
        look = repository.look()
        assert (look.is_writable, look.state) == (False, RepositoryState.read_only)
        with pytest.raises(RepositoryReadOnly):
            look.require_space(repository.path)
        with pytest.raises(RepositoryReadOnly):
            repository.begin_point("domain", "point")


def test_a_full_repository_cannot_be_created(small_filesystem: Path) -> None:
    _fill(small_filesystem)
    (small_filesystem / "filling").rename(small_filesystem / ".draft-1-filling")
    with pytest.raises(RepositoryFull):
        _created(small_filesystem)


def test_a_public_key_is_kept_once_and_never_replaced(repository: Repository) -> None:
    repository.call("put_key", {"key_id": "aa", "text": "first"})
    repository.call("put_key", {"key_id": "aa", "text": "second"})
    assert repository.call("list_keys", {})["keys"] == {"aa": "first"}


def test_a_folder_of_keys_that_is_a_link_is_not_followed(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(repository.path, "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ForeignEntry):
        repository.call("put_key", {"key_id": "aa", "text": "first"})
    assert repository.public_keys() == {}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def _fill(filesystem: Path) -> None:
    with (filesystem / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left on device"):
        while True:
            file.write(bytes(4096))
