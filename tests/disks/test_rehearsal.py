"""Files are really opened as QEMU's user: with that user's rights, and after libvirt would have given them away."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.disks import rehearsal
from service.hypervisor import qemu_process
from service.hypervisor.qemu_process import Credentials
from service.hypervisor.security_labels import of_domain, of_host, user_of

NOBODY = Credentials(65534, 65534, (65534,))
ROOT_BY_NAME = Credentials(0, 0, (0,))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; without it, see the test of that")


@pytest.fixture
def folder() -> Iterator[Path]:
    """That others can enter, unlike pytest's."""
    with TemporaryDirectory(dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def opened(user: Credentials, *files: Path, lend: bool = True) -> list[dict[str, object]]:
    answer = rehearsal.opened(user, "/", [{"path": str(file), "lend": lend} for file in files])
    assert "untried" not in answer, answer
    return list(answer["files"])


def new(file: Path) -> Path:
    file.touch(mode=0o600)
    return file


@as_root
def test_a_file_that_will_be_given_away_is_opened_and_has_its_owner_again(folder: Path) -> None:
    overlay = new(folder / "overlay")
    assert opened(NOBODY, overlay) == [{"error": 0, "at": None}]
    assert (overlay.stat().st_uid, overlay.stat().st_gid) == (0, 0)


@as_root
def test_a_file_that_stays_with_another_owner_is_not_opened(folder: Path) -> None:
    overlay = new(folder / "overlay")
    assert opened(NOBODY, overlay, lend=False) == [{"error": errno.EACCES, "at": str(overlay)}]


@as_root
def test_the_first_folder_that_cannot_be_entered_is_named_for_each_file(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "open").mkdir(parents=True)
    closed.chmod(0o700)
    found = opened(NOBODY, new(closed / "open" / "a"), new(folder / "b"), new(closed / "c"))
    assert [file["error"] for file in found] == [errno.EACCES, 0, errno.EACCES]
    assert [file["at"] for file in found] == [str(closed), None, str(closed)]


@as_root
def test_a_group_of_qemu_opens_a_folder(folder: Path) -> None:
    os.chown(folder, 0, 12345)
    folder.chmod(0o750)
    overlay = new(folder / "overlay")
    assert opened(NOBODY, overlay)[0]["error"] == errno.EACCES
    assert opened(Credentials(65534, 65534, (65534, 12345)), overlay)[0]["error"] == 0


@as_root
def test_a_qemu_that_runs_as_root_has_not_the_rights_of_root(folder: Path) -> None:
    os.chown(folder, 65534, 65534)
    folder.chmod(0o700)
    files = [new(folder / "a"), new(folder / "b")]
    assert [file["error"] for file in opened(ROOT_BY_NAME, *files)] == [errno.EACCES] * 2
    assert [file["error"] for file in opened(Credentials(0, 0, (0,), has_rights_of_root=True), *files)] == [0, 0]


@as_root
def test_a_link_in_the_place_of_the_overlay_is_not_followed(folder: Path) -> None:
    target = new(folder / "target")
    (folder / "overlay").symlink_to(target)
    assert opened(NOBODY, folder / "overlay")[0]["error"] == errno.ELOOP
    assert target.stat().st_uid == 0


def test_a_root_that_cannot_be_looked_through_is_said(folder: Path) -> None:
    assert "untried" in rehearsal.opened(NOBODY, str(folder / "nowhere"), [{"path": "/a", "lend": False}])


def test_who_qemu_is_is_read_from_the_labels() -> None:
    live = (
        "<domain><seclabel type='dynamic' model='apparmor' relabel='yes'/>"
        "<seclabel type='static' model='dac'><label>+107:+36</label></seclabel></domain>"
    )
    labels = of_domain(live)
    assert (labels["apparmor"].relabels, labels["dac"].relabels) == (True, False)
    user = user_of(labels["dac"].label)
    assert user is not None
    assert (user.uid, user.gid) == (107, 36)
    secmodel = "<secmodel><model>dac</model><baselabel type='kvm'>root:root</baselabel></secmodel>"
    host = of_host(f"<capabilities><host>{secmodel}</host></capabilities>")
    root = user_of(host["dac"].label)
    assert root is not None
    assert (root.uid, root.gid) == (0, 0)
    assert [user_of(label) for label in (None, "", "no-such-user:root")] == [None, None, None]


def test_a_process_is_not_taken_for_the_qemu_of_a_domain_unless_it_says_so() -> None:
    assert qemu_process.find("00000000-0000-0000-0000-000000000000") is None
