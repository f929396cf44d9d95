"""A point from its first file to the reader: begun, filled, sealed, published once, and read back only if it is what was sealed."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import (
    ForeignEntry,
    PointDamaged,
    RecordUnreadable,
    RepositoryBad,
    RepositoryFull,
    RepositoryGone,
    RepositoryReadOnly,
    RepositoryRefused,
    SignatureWrong,
    StillpointError,
    StorageRefused,
    TargetFull,
    VersionUnknown,
)
from service.model.manifest import StoredFile
from service.repository import partial, removing, seal, signing, sweeping
from service.repository.report import Report
from service.repository.signing import SignatureState, SigningKey
from service.repository.store import Repository
from tests.repository.damages import becomes_a_folder, becomes_a_link, flips_a_bit, is_cut
from tests.repository.filesystems import SMALL_BYTES, read_only
from tests.repository.manifests import DOMAIN, manifest

DISK = bytes(range(256)) * 8192


@pytest.fixture
def signing_key(tmp_path: Path) -> SigningKey:
    return SigningKey.of_service(tmp_path / "state")


def _begun(repository: Repository, tmp_path: Path, name: str = "point") -> str:
    begun = repository.begin_point(DOMAIN, name)
    disk = tmp_path / "disk"
    disk.write_bytes(DISK)
    repository.put_file(begun.partial, "vda.qcow2", disk)
    repository.put_file(begun.partial, "tpm/2/permall", disk)
    repository.put_text(begun.partial, "domain.xml", "<domain>ü</domain>")
    return begun.partial


def _published(repository: Repository, tmp_path: Path, signing_key: SigningKey | None, name: str = "point") -> Path:
    unfinished = _begun(repository, tmp_path, name)
    point = manifest(name, repository.seal(unfinished))
    repository.publish(unfinished, point, signing_key)
    return Path(repository.path, point.folder)


def test_what_is_sealed_is_what_is_there(repository: Repository, tmp_path: Path) -> None:
    files = repository.seal(_begun(repository, tmp_path))
    assert {(file.name, file.bytes, file.sha256) for file in files} == {
        ("vda.qcow2", len(DISK), hashlib.sha256(DISK).hexdigest()),
        ("tpm/2/permall", len(DISK), hashlib.sha256(DISK).hexdigest()),
        ("domain.xml", 19, hashlib.sha256("<domain>ü</domain>".encode()).hexdigest()),
    }


def test_a_published_point_is_listed_and_read(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    folder = _published(repository, tmp_path, signing_key)
    (point,) = repository.points()
    assert point.manifest is not None
    assert (point.folder, point.error, point.is_signed, point.signature) == (
        point.manifest.folder,
        None,
        True,
        SignatureState.unknown_key,
    )
    assert repository.point(point.folder) == point.manifest
    assert repository.definition(point.folder) == "<domain>ü</domain>"
    assert {each.name for each in folder.iterdir()} == {"vda.qcow2", "tpm", "domain.xml", "manifest.json", "manifest.sig"}
    assert [each.name for each in folder.parent.iterdir()] == ["point"]


def test_the_signature_of_a_known_key_is_good(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    _published(repository, tmp_path, signing_key)
    repository.known_keys = {signing_key.id: signing_key.public}
    (point,) = repository.points()
    assert (point.signature, point.key_id) == (SignatureState.good, signing_key.id)
    assert repository.public_keys() == {signing_key.id: signing_key.public}


def test_a_point_without_a_signature_is_read(repository: Repository, tmp_path: Path) -> None:
    folder = _published(repository, tmp_path, None)
    (point,) = repository.points()
    assert (point.is_signed, point.signature) == (None, SignatureState.missing)
    assert repository.point(f"domains/{DOMAIN}/{folder.name}") == point.manifest


def test_nobody_else_may_read_a_point(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    os.umask(0)
    folder = _published(repository, tmp_path, signing_key)
    for each in [folder.parent.parent, folder.parent, folder, *folder.rglob("*")]:
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600), each


def test_a_point_that_is_begun_again_keeps_what_it_has(repository: Repository, tmp_path: Path) -> None:
    unfinished = _begun(repository, tmp_path)
    again = repository.begin_point(DOMAIN, "point")
    assert (again.partial, again.is_resumed, again.is_published) == (unfinished, True, False)
    assert Path(repository.path, unfinished, "vda.qcow2").read_bytes() == DISK


def test_a_file_that_is_put_again_is_replaced(repository: Repository, tmp_path: Path) -> None:
    unfinished = _begun(repository, tmp_path)
    repository.put_text(unfinished, "domain.xml", "<other/>")
    assert Path(repository.path, unfinished, "domain.xml").read_text() == "<other/>"


def test_no_point_is_begun_below_a_share_that_is_not_mounted(repository: Repository) -> None:
    """An attempt that continues after a reboot would fill the disk of the host, and seal the point there."""
    (Path(repository.path) / "repository.json").unlink()
    with pytest.raises(RepositoryGone):
        repository.begin_point(DOMAIN, "point")
    assert list(Path(repository.path).iterdir()) == []


def test_no_point_is_begun_in_another_repository_that_is_mounted_there(repository: Repository) -> None:
    repository.id = "another"
    with pytest.raises(RepositoryBad):
        repository.begin_point(DOMAIN, "point")


def test_a_point_that_is_published_is_told_when_it_is_begun_again(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    _published(repository, tmp_path, signing_key)
    assert repository.begin_point(DOMAIN, "point").is_published


def test_publishing_the_same_point_again_is_done_already(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    unfinished = _begun(repository, tmp_path)
    point = manifest("point", repository.seal(unfinished))
    assert repository.publish(unfinished, point, signing_key) == repository.publish(unfinished, point, signing_key)


def test_a_publish_that_is_repeated_syncs_the_folder_again(
    repository: Repository, tmp_path: Path, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier try may have ended between its rename and its sync, and the rename would be lost with the power."""
    unfinished = _begun(repository, tmp_path)
    point = manifest("point", repository.seal(unfinished))
    arguments = {"path": repository.path, "partial": unfinished, "folder": point.folder, "manifest": signing.canonical(point).decode()}
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    seal.publish(arguments, Report(lambda _: None))
    monkeypatch.setattr(os, "fsync", note)
    assert seal.publish(arguments, Report(lambda _: None))["was_published"]
    assert synced == [str(Path(repository.path, point.folder).parent)]


def test_another_point_is_never_published_over_one_that_is_there(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    folder = _published(repository, tmp_path, signing_key)
    before = (folder / "manifest.json").read_bytes()
    unfinished = _begun(repository, tmp_path)
    other = manifest("point", repository.seal(unfinished), verdict="crash")
    with pytest.raises(RepositoryBad):
        repository.publish(unfinished, other, signing_key)
    assert (folder / "manifest.json").read_bytes() == before


def test_marks_of_an_unfinished_point_are_not_published(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    unfinished = _begun(repository, tmp_path)
    Path(repository.path, unfinished, "vda.done.json").write_text("{}")
    Path(repository.path, unfinished, ".draft-7-aa").write_text("half of a file, from a hand that was killed")
    files = repository.seal(unfinished)
    assert {file.name for file in files} == {"vda.qcow2", "domain.xml", "tpm/2/permall"}
    repository.publish(unfinished, manifest("point", files), signing_key)
    folder = Path(repository.path, "domains", DOMAIN, "point")
    assert {each.name for each in folder.iterdir()} == {"vda.qcow2", "tpm", "domain.xml", "manifest.json", "manifest.sig"}


STRANGE: dict[str, Callable[[Path], object]] = {
    "a link to a file": lambda folder: (folder / "extra").symlink_to("/etc/passwd"),
    "a link to a folder": lambda folder: (folder / "extra").symlink_to("/etc"),
    "a link that dangles": lambda folder: (folder / "extra").symlink_to("nothing"),
    "a fifo": lambda folder: os.mkfifo(folder / "extra"),
    "a link below": lambda folder: (folder / "tpm" / "extra").symlink_to("/etc/passwd"),
    "a disk that became a link": lambda folder: becomes_a_link(folder / "vda.qcow2"),
}


@pytest.mark.parametrize("put", STRANGE.values(), ids=STRANGE)
def test_nothing_is_sealed_beside_what_is_not_a_file(repository: Repository, tmp_path: Path, put: Callable[[Path], object]) -> None:
    unfinished = _begun(repository, tmp_path)
    put(Path(repository.path, unfinished))
    with pytest.raises(ForeignEntry):
        repository.seal(unfinished)


def test_a_file_of_another_writer_is_not_sealed(repository: Repository, tmp_path: Path) -> None:
    unfinished = _begun(repository, tmp_path)
    names = ["vda.qcow2", "domain.xml", "tpm/2/permall"]
    repository.seal(unfinished, names)
    Path(repository.path, unfinished, "strange").touch()
    with pytest.raises(ForeignEntry):
        repository.seal(unfinished, names)


def test_a_file_that_is_missing_is_not_sealed(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(PointDamaged):
        repository.seal(_begun(repository, tmp_path), ["vda.qcow2", "domain.xml", "tpm/2/permall", "vdb.qcow2"])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda folder: (folder / "strange").touch(), ForeignEntry),
        (lambda folder: (folder / "vda.qcow2").unlink(), PointDamaged),
        (lambda folder: is_cut(folder / "vda.qcow2"), PointDamaged),
    ],
    ids=["another file", "a file is missing", "a file is shorter"],
)
def test_what_changed_since_it_was_sealed_is_not_published(
    repository: Repository, tmp_path: Path, signing_key: SigningKey, change: Callable[[Path], object], kind: type[StillpointError]
) -> None:
    unfinished = _begun(repository, tmp_path)
    point = manifest("point", repository.seal(unfinished))
    change(Path(repository.path, unfinished))
    with pytest.raises(kind):
        repository.publish(unfinished, point, signing_key)
    assert repository.points() == []


@pytest.mark.parametrize("at", ["domains", f"domains/{DOMAIN}", f"domains/{DOMAIN}/.partial-point"])
def test_a_link_on_the_way_is_not_followed(repository: Repository, tmp_path: Path, at: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = Path(repository.path, at)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    with pytest.raises(ForeignEntry):
        repository.begin_point(DOMAIN, "point")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "", "a//b", ".", "nul\0"])
def test_a_name_that_leaves_the_folder_is_refused(repository: Repository, tmp_path: Path, name: str) -> None:
    unfinished = _begun(repository, tmp_path)
    with pytest.raises(ForeignEntry):
        repository.put_text(unfinished, name, "text")
    with pytest.raises(ForeignEntry):
        repository.begin_point(name, "point")
    with pytest.raises(ForeignEntry):
        repository.begin_point(DOMAIN, name)


@pytest.mark.parametrize("unfinished", ["domains", f"domains/{DOMAIN}", f"domains/{DOMAIN}/point", "keys", ".partial-x", ""])
def test_only_an_unfinished_point_is_dropped(repository: Repository, tmp_path: Path, signing_key: SigningKey, unfinished: str) -> None:
    folder = _published(repository, tmp_path, signing_key)
    with pytest.raises(ForeignEntry):
        repository.drop_partial(unfinished)
    assert (folder / "vda.qcow2").exists()


def test_an_unfinished_point_is_dropped_and_links_in_it_are_not_followed(repository: Repository, tmp_path: Path) -> None:
    unfinished = _begun(repository, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    Path(repository.path, unfinished, "link").symlink_to(tmp_path / "elsewhere")
    Path(repository.path, unfinished, "tpm", "link").symlink_to(tmp_path / "elsewhere")
    assert repository.drop_partial(unfinished)
    assert not repository.drop_partial(unfinished)
    assert not Path(repository.path, unfinished).exists()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_putting_into_a_point_that_was_dropped_makes_nothing(repository: Repository, tmp_path: Path) -> None:
    unfinished = _begun(repository, tmp_path)
    repository.drop_partial(unfinished)
    with pytest.raises(RepositoryRefused):
        repository.put_text(unfinished, "tpm/x", "text")
    assert not Path(repository.path, unfinished).exists()


def test_a_sweep_removes_what_nobody_changed_for_a_day(repository: Repository, tmp_path: Path) -> None:
    old, kept, young = (_begun(repository, tmp_path, name) for name in ("old", "kept", "young"))
    strange = Path(repository.path, "domains", DOMAIN, ".partial-strange")
    strange.mkdir()
    (strange / "file").touch()
    for folder in (old, kept, strange):
        _make_old(Path(repository.path, folder))
    assert repository.sweep([kept]) == [old]
    assert {each.name for each in strange.parent.iterdir()} == {".partial-kept", ".partial-young", ".partial-strange"}
    assert young.endswith("young")


def test_a_sweep_leaves_what_another_service_began(repository: Repository) -> None:
    ours = repository.begin_point(DOMAIN, "ours", owner="us").partial
    theirs = repository.begin_point(DOMAIN, "theirs", owner="them").partial
    for folder in (ours, theirs):
        _make_old(Path(repository.path, folder))
    assert repository.sweep([], owner="us") == [ours]


def test_a_sweep_removes_what_a_killed_one_began_to_remove(repository: Repository, tmp_path: Path) -> None:
    folder = Path(repository.path, _begun(repository, tmp_path))
    for name in ("vda.qcow2", "domain.xml", "partial.json"):
        (folder / name).unlink()
    (folder / "tpm" / "2" / "permall").unlink()
    (folder / "tpm" / "2").rmdir()
    (folder / "tpm").rmdir()
    _make_old(folder)
    assert len(repository.sweep([])) == 1


def test_the_mark_of_an_unfinished_point_is_removed_last(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without it counts as strange, and would stay for ever."""
    unfinished = _begun(repository, tmp_path)
    removed: list[str] = []
    real = os.unlink

    def noted(name: str, *, dir_fd: int) -> None:
        removed.append(name)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", noted)
    partial.drop_partial({"path": repository.path, "partial": unfinished}, Report())
    assert removed[-1] == partial.MARKER


def test_a_full_repository_ends_the_write_and_leaves_no_half_of_a_file(small_filesystem: Path, tmp_path: Path) -> None:
    with Repository(str(small_filesystem), "1") as repository:
        repository.create()
        unfinished = repository.begin_point(DOMAIN, "point").partial
        (tmp_path / "large").write_bytes(bytes(2 * SMALL_BYTES))
        with pytest.raises(RepositoryFull):
            repository.put_file(unfinished, "vda.qcow2", tmp_path / "large")
        assert [each.name for each in Path(repository.path, unfinished).iterdir()] == [partial.MARKER]


def test_a_point_in_a_read_only_repository_is_read_and_not_changed(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    _published(repository, tmp_path, signing_key)
    unfinished = _begun(repository, tmp_path, "next")
    with read_only(Path(repository.path)):
        assert len(repository.points()) == 1
        with pytest.raises(RepositoryReadOnly):
            repository.put_text(unfinished, "domain.xml", "<other/>")
        with pytest.raises(RepositoryReadOnly):
            repository.drop_partial(unfinished)


@pytest.mark.parametrize("source", ["absent", "folder", "fifo"])
def test_a_source_that_is_not_a_file_is_an_error_of_the_host(repository: Repository, tmp_path: Path, source: str) -> None:
    unfinished = _begun(repository, tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageRefused):
        repository.put_file(unfinished, "nvram", tmp_path / source)


DAMAGES: dict[str, tuple[Callable[[Path], object], type[StillpointError]]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), PointDamaged),
    "a manifest that is cut": (lambda folder: (folder / "manifest.json").write_text('{"format"'), RecordUnreadable),
    "a manifest that is a list": (lambda folder: (folder / "manifest.json").write_text("[]"), RecordUnreadable),
    "a manifest of a newer version": (
        lambda folder: (folder / "manifest.json").write_text('{"format": "stillpoint-point", "v": 99}'),
        VersionUnknown,
    ),
    "a manifest that is binary": (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), ForeignEntry),
    "a manifest that is a link": (lambda folder: becomes_a_link(folder / "manifest.json"), ForeignEntry),
    "a manifest that is a folder": (lambda folder: becomes_a_folder(folder / "manifest.json"), ForeignEntry),
    "a folder that is a link": (becomes_a_link, ForeignEntry),
}


@pytest.mark.parametrize(("damage", "kind"), DAMAGES.values(), ids=DAMAGES)
def test_a_point_that_cannot_be_read_is_listed_with_its_error(
    repository: Repository, tmp_path: Path, damage: Callable[[Path], object], kind: type[StillpointError]
) -> None:
    good = _published(repository, tmp_path, None, "good")
    damage(_published(repository, tmp_path, None, "bad"))
    bad, listed_good = repository.points()
    assert (bad.manifest, type(bad.error)) == (None, kind)
    assert (listed_good.error, Path(repository.path, listed_good.folder)) == (None, good)
    with pytest.raises(kind):
        repository.point(bad.folder)


def test_a_domain_that_is_a_link_is_listed_with_its_error(repository: Repository, tmp_path: Path) -> None:
    _published(repository, tmp_path, None)
    Path(repository.path, "domains", "other").symlink_to(DOMAIN)
    assert [type(point.error) for point in repository.points()] == [type(None), ForeignEntry]


def test_a_point_that_is_not_there_is_damaged_and_a_repository_that_is_not_there_is_gone(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(PointDamaged):
        repository.point(f"domains/{DOMAIN}/absent")
    Path(repository.path).rename(tmp_path / "moved")
    with pytest.raises(RepositoryGone):
        repository.point(f"domains/{DOMAIN}/absent")
    with pytest.raises(RepositoryGone):
        repository.points()


def test_a_manifest_that_was_changed_does_not_fit_its_signature(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    folder = _published(repository, tmp_path, signing_key)
    changed = json.loads((folder / "manifest.json").read_text()) | {"verdict": "application"}
    (folder / "manifest.json").write_text(json.dumps(changed))
    (point,) = repository.points()
    assert (point.is_signed, point.signature) == (False, SignatureState.wrong)
    with pytest.raises(SignatureWrong):
        repository.point(point.folder)


def test_a_file_is_copied_out_as_it_was_sealed(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    folder = _published(repository, tmp_path, signing_key)
    target = tmp_path / "a target, with: odd\nname"
    assert repository.copy_out(f"domains/{DOMAIN}/{folder.name}", "tpm/2/permall", target) == len(DISK)
    assert target.read_bytes() == DISK
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        is_cut,
        flips_a_bit,
        lambda file: file.write_bytes(DISK + b"\0"),
        Path.unlink,
    ],
    ids=["cut", "one byte flipped", "longer", "missing"],
)
def test_a_file_that_changed_is_not_copied_out(repository: Repository, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = _published(repository, tmp_path, None)
    damage(folder / "vda.qcow2")
    with pytest.raises(PointDamaged):
        repository.copy_out(f"domains/{DOMAIN}/point", "vda.qcow2", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_file_that_the_manifest_does_not_name_is_not_copied_out(repository: Repository, tmp_path: Path) -> None:
    (_published(repository, tmp_path, None) / "strange").touch()
    with pytest.raises(PointDamaged):
        repository.copy_out(f"domains/{DOMAIN}/point", "strange", tmp_path / "target")


def test_a_target_that_is_there_is_never_overwritten(repository: Repository, tmp_path: Path) -> None:
    _published(repository, tmp_path, None)
    (tmp_path / "target").write_text("precious")
    with pytest.raises(StorageRefused):
        repository.copy_out(f"domains/{DOMAIN}/point", "vda.qcow2", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "precious"


def test_a_target_that_gets_full_is_removed(repository: Repository, tmp_path: Path, small_filesystem: Path) -> None:
    _published(repository, tmp_path, None)
    with pytest.raises(TargetFull) as raised:
        repository.copy_out(f"domains/{DOMAIN}/point", "vda.qcow2", small_filesystem / "target")
    assert (raised.value.facts["folder"], raised.value.facts["needed_bytes"]) == (str(small_filesystem), len(DISK))
    assert list(small_filesystem.iterdir()) == []


def test_a_file_that_is_larger_than_its_limit_is_not_read(repository: Repository, tmp_path: Path) -> None:
    _published(repository, tmp_path, None)
    with pytest.raises(ForeignEntry):
        repository.call("read_file", {"folder": f"domains/{DOMAIN}/point", "name": "domain.xml", "limit": 18})


def test_sealing_says_how_far_it_is(repository: Repository, tmp_path: Path) -> None:
    said: list[tuple[int, int | None]] = []
    unfinished = _begun(repository, tmp_path)
    repository.seal(unfinished, on_progress=lambda progress: said.append((progress.done_bytes, progress.total_bytes)))
    total = 2 * len(DISK) + 19
    assert said[-1] == (total, total)


def test_two_services_in_one_repository_see_both_points(repository: Repository, tmp_path: Path, signing_key: SigningKey) -> None:
    other_key = SigningKey.of_service(tmp_path / "other state")
    with Repository(repository.path, repository.id) as other:
        other.create()
        ours, theirs = _begun(repository, tmp_path, "ours"), _begun(other, tmp_path, "theirs")
        repository.publish(ours, manifest("ours", repository.seal(ours)), signing_key)
        other.publish(theirs, manifest("theirs", other.seal(theirs)), other_key)
        assert {point.key_id for point in repository.points()} == {signing_key.id, other_key.id}
        assert set(other.public_keys()) == {signing_key.id, other_key.id}


def _make_old(folder: Path) -> None:
    before = time.time() - sweeping.MIN_STALE_S - 60
    for each in [*folder.iterdir(), folder]:
        os.utime(each, (before, before))


def test_the_files_of_a_manifest_are_what_was_sealed() -> None:
    assert manifest("x", [StoredFile("a", 1, "b")]).as_document()["files"] == [{"name": "a", "bytes": 1, "sha256": "b"}]


def test_a_sweep_removes_a_folder_whose_process_was_killed_before_it_had_its_marker(repository: Repository) -> None:
    folder = Path(repository.path, repository.begin_point(DOMAIN, "begun", owner="us").partial)
    (folder / "partial.json").rename(folder / ".draft-1-abc")
    _make_old(folder)
    assert repository.sweep([], owner="us") == [str(folder.relative_to(repository.path))]
    assert not folder.exists()


@pytest.mark.parametrize("name", [".probe-1-abc", ".draft-1-abc", "keys/.draft-1-abc"])
def test_a_sweep_removes_what_a_killed_look_or_write_has_left_after_a_day(repository: Repository, name: str) -> None:
    repository.call("put_key", {"key_id": "us", "text": "a key"})
    left = Path(repository.path, name)
    left.touch()
    repository.sweep([])
    assert left.exists()
    os.utime(left, (time.time() - sweeping.MIN_STALE_S - 60,) * 2)
    repository.sweep([])
    assert not left.exists()
    assert {"repository.json", "keys/us.pub"} == {str(file.relative_to(repository.path)) for file in Path(repository.path).rglob("*.*")}


# --- removal ----------------------------------------------------------------------------------------


def test_a_removed_point_leaves_nothing_and_is_removed_again_without_harm(repository: Repository, tmp_path: Path) -> None:
    point = _published(repository, tmp_path, None)
    folder = str(point.relative_to(repository.path))
    assert repository.remove_point(folder) >= len(DISK)
    assert list(point.parent.iterdir()) == []
    assert repository.remove_point(folder) == 0


def test_a_symbolic_link_in_a_point_is_removed_and_never_what_it_points_to(repository: Repository, tmp_path: Path) -> None:
    point, precious = _published(repository, tmp_path, None), tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (point / "link").symlink_to(precious)
    repository.remove_point(str(point.relative_to(repository.path)))
    assert (precious / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "folder", ["domains", "domains/x", "domains/x/.partial-y", "domains/x/..", "keys/a/b", "../domains/x/y", "domains/x/y/z"]
)
def test_what_is_not_the_folder_of_a_point_is_not_removed(repository: Repository, folder: str) -> None:
    with pytest.raises(ForeignEntry):
        repository.remove_point(folder)


def test_nothing_is_removed_below_a_share_that_is_not_mounted(repository: Repository, tmp_path: Path) -> None:
    point = _published(repository, tmp_path, None)
    Path(repository.path, "repository.json").rename(tmp_path / "away")
    with pytest.raises(StillpointError) as raised:
        repository.remove_point(str(point.relative_to(repository.path)))
    assert raised.value.code in ("repository_bad", "repository_gone")
    assert point.is_dir()


def test_a_sweep_removes_what_a_removal_has_left_after_a_day(repository: Repository, tmp_path: Path) -> None:
    point = _published(repository, tmp_path, None)
    left = point.rename(point.with_name(f"{removing.REMOVED_PREFIX}point"))
    repository.sweep([])
    assert left.is_dir()
    _make_old(left)
    repository.sweep([])
    assert not left.exists()
