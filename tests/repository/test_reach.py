"""QEMU's user may read a point during an instant restore, and only then. The point itself is not changed. These tests need root."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import OutOfReachOfQemu, PointDamaged, StorageRefused, TargetFull
from service.model.manifest import StoredFile
from service.repository import access_list, signing
from service.repository.stamps import stamp_of
from tests.live.folders import folder_for_qemu
from tests.repository.disks import MIB, Disk, are_identical, named, qemu
from tests.repository.filesystems import small
from tests.repository.manifests import manifest
from tests.repository.step_process import run_step

NOBODY = 65534
FOLDER = "domains/d/p2"


@pytest.fixture
def repository() -> Iterator[Path]:
    """A repository as the service makes it: closed to all other users. Its point p2 inherits from p1."""
    with folder_for_qemu("reach") as parent:
        root = parent / "repository"
        for folder in (root, root / "domains", root / "domains/d", root / "domains/d/p1", root / FOLDER):
            folder.mkdir(mode=0o700)
        below = Disk.make(root / "domains/d/p1/vda.qcow2", 4 * MIB)
        below.write((1, 0, MIB))
        qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", "../p1/vda.qcow2", "-F", "qcow2", root / FOLDER / "vda.qcow2")
        for image in root.rglob("*.qcow2"):
            image.chmod(0o600)
        yield root


def asked(repository: Path, **more: Any) -> dict[str, Any]:
    plain = {"path": str(repository), "images": [[FOLDER, "vda.qcow2"]], "uid": NOBODY, "gid": NOBODY, "groups": [NOBODY]}
    return plain | more


def modes(repository: Path) -> dict[str, int]:
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in sorted(repository.rglob("*"))}


def can_read(path: Path) -> bool:
    command = ["head", "-c", "1", str(path)]
    return subprocess.run(command, capture_output=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0


def can_write(path: Path) -> bool:
    command = ["sh", "-c", 'exec 3<>"$0"', str(path)]
    return subprocess.run(command, capture_output=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0


def test_the_images_of_the_chain_can_be_read_and_not_written_until_they_are_closed_again(repository: Path) -> None:
    before, images = modes(repository), [repository / FOLDER / "vda.qcow2", repository / "domains/d/p1/vda.qcow2"]
    assert [can_read(image) for image in images] == [False, False]

    chains = run_step("open_to_qemu", asked(repository))["chains"]

    assert chains == [[str(image) for image in images]]
    assert [can_read(image) for image in images] == [True, True]
    assert [can_write(image) for image in images] == [False, False]

    run_step("close_to_qemu", asked(repository))

    assert [can_read(image) for image in images] == [False, False]
    assert {path: mode for path, mode in modes(repository).items() if path.endswith((".qcow2", "p1", "p2"))} == {
        path: mode for path, mode in before.items() if path.endswith((".qcow2", "p1", "p2"))
    }


def test_a_change_of_rights_says_what_stamps_it_changed_and_no_other_change_is_hidden_by_that(repository: Path) -> None:
    sealed = {folder: manifest(folder, [StoredFile("vda.qcow2", 0, "")], folder=folder) for folder in ("domains/d/p1", FOLDER)}
    for folder, its_manifest in sealed.items():
        (repository / folder / "manifest.json").write_bytes(signing.canonical(its_manifest))

    def stamps() -> dict[str, str]:
        return {folder: stamp_of(str(repository), folder, its_manifest) for folder, its_manifest in sealed.items()}

    before = stamps()
    opened = run_step("open_to_qemu", asked(repository))["changed"]
    open_now = stamps()
    assert opened == {folder: [before[folder], open_now[folder]] for folder in sealed}
    (repository / FOLDER / "vda.qcow2").touch()
    closed = run_step("close_to_qemu", asked(repository))["changed"]
    assert (closed["domains/d/p1"][0], closed[FOLDER][0] != open_now[FOLDER]) == (open_now["domains/d/p1"], True)
    assert {folder: pair[1] for folder, pair in closed.items()} == stamps()


def test_a_folder_above_the_repository_that_is_closed_is_named_and_no_right_stays(repository: Path) -> None:
    repository.parent.chmod(0o700)
    before = modes(repository)
    with pytest.raises(OutOfReachOfQemu) as refused:
        run_step("open_to_qemu", asked(repository))
    assert refused.value.facts["path"].startswith(str(repository.parent))
    assert {path: mode for path, mode in modes(repository).items() if path.endswith(".qcow2")} == {
        path: mode for path, mode in before.items() if path.endswith(".qcow2")
    }
    assert all(NOBODY not in access_list.users(str(image)) for image in repository.rglob("*.qcow2"))


def test_nothing_is_granted_where_the_user_can_read_already(repository: Path) -> None:
    run_step("open_to_qemu", asked(repository, uid=os.geteuid(), gid=os.getegid()))
    assert all(access_list.users(str(path)) == {} for path in repository.rglob("*"))


def test_rights_of_other_users_stay(repository: Path) -> None:
    image = str(repository / FOLDER / "vda.qcow2")
    access_list.grant(image, 4711, access_list.READ)
    run_step("open_to_qemu", asked(repository))
    run_step("close_to_qemu", asked(repository))
    assert access_list.users(image) == {4711: access_list.READ}


def test_an_overlay_reads_from_the_repository_and_is_made_whole_later(repository: Path, tmp_path: Path) -> None:
    image, target = repository / FOLDER / "vda.qcow2", tmp_path / "a, b: c.qcow2"
    wanted = {"path": str(repository), "folder": FOLDER, "file": "vda.qcow2", "target": str(target), "virtual_size": 4 * MIB}
    run_step("make_overlay", wanted)
    assert are_identical(target, image)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(StorageRefused):
        run_step("make_overlay", wanted)

    run_step("make_whole", {"target": str(target)})

    assert "backing" not in qemu("qemu-img", "info", named(target))
    assert are_identical(target, image)


def test_an_overlay_that_does_not_fit_is_not_left_behind(repository: Path, tmp_path: Path) -> None:
    with small(tmp_path / "small") as folder:
        with (folder / "filler").open("wb") as filler:
            filler.truncate(0)
            os.posix_fallocate(filler.fileno(), 0, os.statvfs(folder).f_bavail * 4096)
        wanted = {
            "path": str(repository),
            "folder": FOLDER,
            "file": "vda.qcow2",
            "target": str(folder / "o.qcow2"),
            "virtual_size": 4 * MIB,
        }
        with pytest.raises(TargetFull):
            run_step("make_overlay", wanted)
        assert [path.name for path in folder.iterdir()] == ["filler"]


def test_a_chain_that_leads_out_of_the_repository_is_refused(repository: Path, tmp_path: Path) -> None:
    outside = Disk.make(tmp_path / "outside.qcow2", 4 * MIB)
    image = repository / FOLDER / "vda.qcow2"
    qemu("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", outside.path, "-F", "qcow2", image)
    with pytest.raises(PointDamaged):
        run_step("open_to_qemu", asked(repository))
